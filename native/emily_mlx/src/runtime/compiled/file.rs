//! A file of compiled code: the names of its kernels with those that the compiler gave them, a line each, and the code.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::path::Path;

const FIRST_LINE: &[u8] = b"code for emily, 1";

#[derive(Debug, PartialEq)]
pub(super) struct File {
    /// The compiler's name for each kernel, in the order of theirs.
    pub(super) lowered: Vec<CString>,
    pub(super) code: Vec<u8>,
}

impl File {
    /// What is in a file that is whole and has kernels of these names.
    pub(super) fn read(path: &Path, names: &[CString]) -> Option<File> {
        let bytes = fs::read(path).ok()?;
        let mut rest = &bytes[..];
        let mut line = || {
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let (line, behind) = rest.split_at(end);
            rest = &behind[1..];
            Some(line)
        };
        if line()? != FIRST_LINE {
            return None;
        }
        let mut lowered = Vec::with_capacity(names.len());
        for name in names {
            if line()? != name.to_bytes() {
                return None;
            }
            lowered.push(CString::new(line()?).ok()?);
        }
        let size: usize = std::str::from_utf8(line()?).ok()?.parse().ok()?;
        (rest.len() == size).then(|| File {
            lowered,
            code: rest.to_vec(),
        })
    }

    /// Writes it. Others see it whole or not at all.
    pub(super) fn write(&self, path: &Path, names: &[CString]) -> io::Result<()> {
        let mut bytes = FIRST_LINE.to_vec();
        for (name, lowered) in names.iter().zip(&self.lowered) {
            for name in [name, lowered] {
                if name.to_bytes().contains(&b'\n') {
                    return Err(io::ErrorKind::InvalidInput.into());
                }
                bytes.push(b'\n');
                bytes.extend(name.to_bytes());
            }
        }
        bytes.extend(format!("\n{}\n", self.code.len()).bytes());
        bytes.extend(&self.code);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let new = path.with_extension(format!("{}.new", std::process::id()));
        fs::write(&new, bytes)?;
        fs::rename(&new, path).inspect_err(|_| {
            let _ = fs::remove_file(&new);
        })
    }

    /// The compiler's name for one of the kernels.
    pub(super) fn lowered(&self, names: &[CString], wanted: &CStr) -> Option<&CStr> {
        let at = names.iter().position(|name| **name == *wanted)?;
        self.lowered.get(at).map(|lowered| &**lowered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("emily-{name}-{}", std::process::id());
            Folder(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names() -> Vec<CString> {
        vec![c"sum<float>".into(), c"sum<half>".into()]
    }

    fn file() -> File {
        File {
            lowered: vec![c"_Z3sumIfE".into(), c"_Z3sumI4halfE".into()],
            code: b"\x7fELF\n\0\n2".to_vec(),
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = Folder::new("written");
        let path = folder.0.join("a").join("1.kernel");
        assert_eq!(File::read(&path, &names()), None);
        file().write(&path, &names()).expect("there is a disk");
        assert_eq!(File::read(&path, &names()), Some(file()));
        assert_eq!(
            file().lowered(&names(), c"sum<half>"),
            Some(c"_Z3sumI4halfE")
        );
        assert_eq!(file().lowered(&names(), c"sum<int>"), None);
        // Nothing else is left, and a second time it is replaced.
        file().write(&path, &names()).expect("there is a disk");
        let left = fs::read_dir(folder.0.join("a")).expect("it was made");
        assert_eq!(left.count(), 1);
    }

    #[test]
    fn what_is_not_whole_or_of_other_names_is_not_read() {
        let folder = Folder::new("broken");
        let path = folder.0.join("1.kernel");
        file().write(&path, &names()).expect("there is a disk");
        let whole = fs::read(&path).expect("it was written");
        assert_eq!(File::read(&path, &names()[..1]), None);
        assert_eq!(
            File::read(&path, &[c"sum<half>".into(), c"sum<float>".into()]),
            None
        );
        for size in 0..whole.len() {
            fs::write(&path, &whole[..size]).expect("there is a disk");
            assert_eq!(File::read(&path, &names()), None, "{size} bytes");
        }
        fs::write(&path, [&whole[..], b"more"].concat()).expect("there is a disk");
        assert_eq!(File::read(&path, &names()), None);
        let line = File {
            lowered: vec![c"a\nb".into(), c"c".into()],
            code: Vec::new(),
        };
        assert!(line.write(&path, &names()).is_err());
    }
}

//! How much memory there is: the least of what the machine, the containers around the process and the process's
//! own limits leave.

/// What bounds memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bound {
    pub whose: &'static str,
    pub limit: usize,
    /// What is taken of it, by whomever.
    pub taken: usize,
}

impl Bound {
    /// What may still be taken. Some is left for the BEAM, whose own failure to get memory ends the process.
    pub(crate) fn room(&self) -> usize {
        const MOST_RESERVED: usize = 128 << 20;
        let reserved = MOST_RESERVED.min(self.limit / 16);
        self.limit
            .saturating_sub(self.taken)
            .saturating_sub(reserved)
    }
}

/// The bounds of this process. `held` are the bytes that MLX has been promised, of which the kernel counts those
/// alone that were touched; `pending` are those that it is about to be promised.
#[cfg(target_os = "linux")]
pub(crate) fn bounds(held: usize, pending: usize) -> Vec<Bound> {
    linux::bounds(std::path::Path::new("/"), held, pending)
}

/// Elsewhere the machine's memory is all that is known.
#[cfg(not(target_os = "linux"))]
pub(crate) fn bounds(held: usize, pending: usize) -> Vec<Bound> {
    // SAFETY: sysconf reads two constants of the system.
    let sizes = unsafe {
        [
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        ]
    };
    let [pages, size] = sizes.map(|size| usize::try_from(size).unwrap_or(usize::MAX));
    vec![Bound {
        whose: "machine",
        limit: pages.saturating_mul(size),
        taken: held.saturating_add(pending),
    }]
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::Bound;

    pub(super) fn bounds(root: &Path, held: usize, pending: usize) -> Vec<Bound> {
        let own = Own::read(root);
        let promised = held.saturating_sub(own.resident).saturating_add(pending);
        let mut bounds = containers(root);
        bounds.extend(machine(root, own.resident));
        bounds
            .iter_mut()
            .for_each(|bound| bound.taken = bound.taken.saturating_add(promised));
        for (resource, taken) in [
            (libc::RLIMIT_AS, own.addresses),
            (libc::RLIMIT_DATA, own.data),
        ] {
            bounds.extend(resource_limit(resource).map(|limit| Bound {
                whose: "process",
                limit,
                taken: taken.saturating_add(pending),
            }));
        }
        bounds
    }

    /// What the process has, in bytes.
    #[derive(Default)]
    struct Own {
        addresses: usize,
        resident: usize,
        data: usize,
    }

    impl Own {
        fn read(root: &Path) -> Own {
            let text = read(root, "proc/self/statm");
            // SAFETY: reads a constant of the system.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
            let page = usize::try_from(page).unwrap_or(4096);
            let pages: Vec<usize> = text
                .split_whitespace()
                .map(|count| count.parse().unwrap_or(0))
                .collect();
            let bytes = |at: usize| pages.get(at).copied().unwrap_or(0).saturating_mul(page);
            Own {
                addresses: bytes(0),
                resident: bytes(1),
                data: bytes(5),
            }
        }
    }

    /// What the kernel takes for available, with what it could swap out; never less is taken than what this
    /// process has.
    fn machine(root: &Path, resident: usize) -> Option<Bound> {
        let text = read(root, "proc/meminfo");
        let of = |name: &str| entry(&text, name).map(|kilobytes| kilobytes.saturating_mul(1024));
        let limit = of("MemTotal:")?;
        let available = of("MemAvailable:")?.saturating_add(of("SwapFree:").unwrap_or(0));
        Some(Bound {
            whose: "machine",
            limit,
            taken: limit.saturating_sub(available).max(resident),
        })
    }

    fn resource_limit(resource: libc::__rlimit_resource_t) -> Option<usize> {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the struct is live for the call.
        let status = unsafe { libc::getrlimit(resource, &mut limit) };
        let is_set = status == 0 && limit.rlim_cur != libc::RLIM_INFINITY;
        is_set.then(|| usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX))
    }

    /// The names of a hierarchy's files.
    struct Names {
        limit: &'static str,
        taken: &'static str,
        /// Entries of `memory.stat`: pages of files, which the kernel drops where memory is short.
        files: [&'static str; 2],
    }

    const FIRST: Names = Names {
        limit: "memory.limit_in_bytes",
        taken: "memory.usage_in_bytes",
        files: ["total_inactive_file", "total_active_file"],
    };

    const SECOND: Names = Names {
        limit: "memory.max",
        taken: "memory.current",
        files: ["inactive_file", "active_file"],
    };

    /// The limits of the control groups that the process is in and of those around them, in both versions.
    fn containers(root: &Path) -> Vec<Bound> {
        let groups = read(root, "proc/self/cgroup");
        let mounts = read(root, "proc/self/mountinfo");
        let mut bounds = Vec::new();
        for line in groups.lines() {
            // hierarchy:controllers:path
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let names = match controllers {
                "" => SECOND,
                _ if controllers.split(',').any(|one| one == "memory") => FIRST,
                _ => continue,
            };
            for (top, group) in mounts.lines().filter_map(|line| mount(line, controllers)) {
                // What lies outside of the mount is not to be seen: the group is the mount's own.
                let below = Path::new(path)
                    .strip_prefix(&group)
                    .unwrap_or(Path::new(""));
                let top = inside(root, &top);
                let folder = top.join(below);
                for folder in folder.ancestors().take_while(|one| one.starts_with(&top)) {
                    bounds.extend(container(folder, &names));
                }
            }
        }
        bounds
    }

    /// Where a line of mountinfo mounts the hierarchy, and the group that is mounted there.
    fn mount(line: &str, controllers: &str) -> Option<(PathBuf, PathBuf)> {
        // id parent device root mount-point options [fields] - type source super-options
        let (place, kind) = line.split_once(" - ")?;
        let mut kind = kind.split(' ');
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let is_it = match controllers {
            "" => kind == "cgroup2",
            _ => kind == "cgroup" && options.split(',').any(|one| one == "memory"),
        };
        let mut place = place.split(' ').skip(3);
        let (group, top) = (place.next()?, place.next()?);
        is_it.then(|| (top.into(), group.into()))
    }

    fn container(folder: &Path, names: &Names) -> Option<Bound> {
        // The root has no such files, and "max" is no limit; in the first version that is a huge number.
        let limit: usize = read(folder, names.limit).trim().parse().ok()?;
        let taken = read(folder, names.taken).trim().parse().unwrap_or(0usize);
        // The kernel adds them up when they are read, which takes long on a large machine.
        let stat = match taken > limit / 2 {
            true => read(folder, "memory.stat"),
            false => String::new(),
        };
        let files = names.files.map(|name| entry(&stat, name).unwrap_or(0));
        Some(Bound {
            whose: "container",
            limit,
            taken: taken.saturating_sub(files[0].saturating_add(files[1])),
        })
    }

    /// The number that follows a name at the beginning of a line.
    fn entry(text: &str, name: &str) -> Option<usize> {
        let mut lines = text.lines().map(str::split_whitespace);
        let mut line = lines.find(|line| line.clone().next() == Some(name))?;
        line.nth(1)?.parse().ok()
    }

    /// A file's text; what cannot be read has none.
    fn read(folder: &Path, name: &str) -> String {
        fs::read_to_string(folder.join(name)).unwrap_or_default()
    }

    fn inside(root: &Path, path: &Path) -> PathBuf {
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        /// A folder with files that stand for the system's, gone when it is dropped.
        struct System(PathBuf);

        impl System {
            fn new(name: &str, files: &[(&str, &str)]) -> System {
                let root =
                    std::env::temp_dir().join(format!("emily-{name}-{}", std::process::id()));
                for (path, text) in files {
                    let path = root.join(path);
                    fs::create_dir_all(path.parent().expect("a folder")).expect("a new folder");
                    fs::write(path, text).expect("a new file");
                }
                System(root)
            }

            fn containers(&self) -> Vec<(usize, usize)> {
                let bounds = containers(&self.0);
                bounds.iter().map(|one| (one.limit, one.taken)).collect()
            }
        }

        impl Drop for System {
            fn drop(&mut self) {
                let _ = fs::remove_dir_all(&self.0);
            }
        }

        const SECOND_MOUNT: &str =
            "30 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

        #[test]
        fn every_group_around_the_process_counts() {
            let system = System::new(
                "second",
                &[
                    ("proc/self/cgroup", "0::/outer/inner\n"),
                    ("proc/self/mountinfo", SECOND_MOUNT),
                    ("sys/fs/cgroup/outer/memory.max", "3000\n"),
                    ("sys/fs/cgroup/outer/memory.current", "2000\n"),
                    (
                        "sys/fs/cgroup/outer/memory.stat",
                        "anon 5\ninactive_file 300\nactive_file 200\n",
                    ),
                    ("sys/fs/cgroup/outer/inner/memory.max", "max\n"),
                    ("sys/fs/cgroup/outer/inner/memory.current", "900\n"),
                ],
            );
            assert_eq!(system.containers(), [(3000, 1500)]);
        }

        #[test]
        fn a_namespace_shows_the_group_as_its_root() {
            let system = System::new(
                "namespace",
                &[
                    ("proc/self/cgroup", "0::/\n"),
                    ("proc/self/mountinfo", SECOND_MOUNT),
                    ("sys/fs/cgroup/memory.max", "700\n"),
                    ("sys/fs/cgroup/memory.current", "100\n"),
                ],
            );
            assert_eq!(system.containers(), [(700, 100)]);
        }

        #[test]
        fn the_first_version_counts_too() {
            let system = System::new(
                "first",
                &[
                    (
                        "proc/self/cgroup",
                        "5:cpu,memory:/docker/abc\n4:pids:/docker/abc\n0::/\n",
                    ),
                    (
                        "proc/self/mountinfo",
                        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,cpu,memory\n\
                         36 31 0:33 / /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n",
                    ),
                    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n"),
                    ("sys/fs/cgroup/memory/memory.usage_in_bytes", "4000\n"),
                    (
                        "sys/fs/cgroup/memory/memory.stat",
                        "inactive_file 1\ntotal_inactive_file 1500\ntotal_active_file 500\n",
                    ),
                ],
            );
            assert_eq!(system.containers(), [(5000, 2000)]);
        }

        #[test]
        fn what_was_promised_and_not_touched_is_taken() {
            let files = [
                ("proc/self/statm", "1000 10 0 0 0 100 0\n"),
                (
                    "proc/meminfo",
                    "MemTotal: 1000 kB\nMemAvailable: 600 kB\nSwapFree: 100 kB\n",
                ),
            ];
            let system = System::new("promised", &files);
            let machine = |held, pending| {
                let bounds = bounds(&system.0, held, pending);
                let machine = bounds.iter().find(|bound| bound.whose == "machine");
                machine.expect("meminfo is there").taken
            };
            // 300 kB are not available, and of 40 kB that the process has MLX may have all.
            assert_eq!(machine(40_960, 0), 300 * 1024);
            assert_eq!(machine(140_960, 0), 300 * 1024 + 100_000);
            assert_eq!(machine(0, 7), 300 * 1024 + 7);
        }

        #[test]
        fn nothing_readable_bounds_nothing() {
            let system = System::new("nothing", &[("proc/self/cgroup", "garbage\n0::/a\n")]);
            assert_eq!(system.containers(), []);
            assert_eq!(machine(&system.0, 0), None);
        }
    }
}

//! Which files know of which: none of each other in a circle, in any crate, and none of a layer above its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const LAYERS: [&str; 3] = ["runtime", "ops", "program"];

/// Every source file by its module's path, without its tests.
fn files(folder: &Path, module: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("a file").path();
        let name = path.file_stem().and_then(|name| name.to_str());
        let name = match (module, name.expect("names are text")) {
            (module, "mod") => module.to_owned(),
            ("", name) => name.to_owned(),
            (module, name) => format!("{module}::{name}"),
        };
        if path.is_dir() {
            files(&path, &name, found);
        } else {
            let text = fs::read_to_string(&path).expect("text");
            let end = text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len());
            found.insert(name, text[..end].to_owned());
        }
    }
}

/// The paths of a `use`, one for each name that it brings.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let Some((prefix, rest)) = tree.split_once('{') else {
        paths.push(format!("{before}{tree}"));
        return;
    };
    let before = format!("{before}{prefix}");
    let (mut depth, mut from) = (0, 0);
    let inner = &rest[..rest.rfind('}').expect("braces close")];
    for (at, character) in inner.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                expand(&before, &inner[from..at], paths);
                from = at + 1;
            }
            _ => (),
        }
    }
    if from < inner.len() {
        expand(&before, &inner[from..], paths);
    }
}

/// Every path of the crate's own that a file's text names, from the crate's root on.
fn paths(module: &str, text: &str) -> Vec<String> {
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    let mut paths = Vec::new();
    let (mut tree, mut children) = (String::new(), Vec::new());
    for line in text.lines().filter(is_code) {
        let declared = line.trim_start().trim_start_matches("pub(crate) ");
        let declared = declared.trim_start_matches("pub ");
        if let Some(child) = declared.strip_prefix("mod ") {
            children.push(child.trim_end_matches(';').to_owned());
        }
        // A `use` may go over several lines.
        match declared.strip_prefix("use ") {
            Some(rest) => tree.push_str(rest),
            None if !tree.is_empty() => tree.push_str(line),
            None => {
                let is_path =
                    |character: char| character.is_alphanumeric() || "_:".contains(character);
                let named = line.split(|character| !is_path(character));
                paths.extend(named.map(str::to_owned));
            }
        }
        if tree.ends_with(';') {
            let whole: String = tree.split_whitespace().collect();
            expand("", whole.trim_end_matches(';'), &mut paths);
            tree.clear();
        }
    }
    let parent = module.rsplit_once("::").map_or("", |(parent, _)| parent);
    let absolute = |path: &String| {
        let (first, rest) = path.split_once("::")?;
        match first {
            "crate" => Some(rest.to_owned()),
            "super" => Some(format!("{parent}::{rest}")),
            _ if children.iter().any(|child| child == first) => Some(format!("{module}::{path}")),
            _ => None,
        }
    };
    paths.iter().filter_map(absolute).collect()
}

/// For each module of a crate those that it names.
fn graph(package: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut texts = BTreeMap::new();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let folder = crates.expect("crates lie beside each other").join(package);
    files(&folder.join("src"), "", &mut texts);
    let named = |module: &String, text: &String| {
        let module_of = |path: String| {
            let mut path = path.trim_start_matches(':');
            while !texts.contains_key(path) {
                path = path.rsplit_once("::")?.0;
            }
            (path != module).then(|| path.to_owned())
        };
        paths(module, text)
            .into_iter()
            .filter_map(module_of)
            .collect()
    };
    let modules = texts.iter();
    modules
        .map(|(module, text)| (module.clone(), named(module, text)))
        .collect()
}

#[test]
fn no_file_knows_of_a_layer_above_its_own() {
    let layer = |module: &str| {
        let first = module.split("::").next();
        LAYERS.iter().position(|layer| Some(*layer) == first)
    };
    for (module, named) in graph("emily_mlx") {
        for other in named {
            let upwards = layer(&module) < layer(&other) && layer(&module).is_some();
            assert!(!upwards, "{module} knows of {other}");
        }
    }
}

/// The modules that are in a circle, or between two.
fn in_circles(mut left: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        // What names none that is left, or what none that is left names, is in no circle.
        let before = left.len();
        let targets: BTreeSet<String> = left.values().flatten().cloned().collect();
        left.retain(|module, named| !named.is_empty() && targets.contains(module));
        if left.len() == before {
            return left;
        }
        let rest: BTreeSet<String> = left.keys().cloned().collect();
        for named in left.values_mut() {
            named.retain(|other| rest.contains(other));
        }
    }
}

#[test]
fn no_files_know_of_each_other_in_a_circle() {
    let arrows = graph("emily_mlx");
    assert!(arrows["ops::apply"].contains("ops::reduce"));
    assert!(arrows["ops::attention::cached"].contains("ops::attention"));
    assert!(graph("emily_kernels")["gemm::few"].contains("gemm::matrix"));
    let mut kernels = graph("emily_kernels");
    // There a folder's own file is its face: it hands on what the others define, and has what they share.
    for (module, named) in &mut kernels {
        let inside = format!("{module}::");
        named.retain(|other| !other.starts_with(&inside));
    }
    for arrows in [kernels, arrows, graph("emily_nif"), graph("mlx_prep")] {
        let circles = in_circles(arrows);
        assert!(circles.is_empty(), "{circles:#?}");
    }
}

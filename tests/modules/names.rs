//! The modules of the crate, and the file that defines what a path names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::tokens::{tokens, Token};

/// A module: a file, or a block in one.
#[derive(Debug, Default)]
pub struct Module {
    pub file: PathBuf,
    pub children: BTreeMap<String, usize>,
    parent: Option<usize>,
    /// Names that are bound here by `use`, with the path that each stands for.
    imports: Vec<Import>,
    /// Names of the items that are defined here.
    items: BTreeSet<String>,
    /// Paths that code names here, and words that stand alone.
    paths: Vec<Vec<String>>,
    words: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Import {
    name: String,
    path: Vec<String>,
    is_public: bool,
}

/// All modules of a crate; the first is its root.
#[derive(Debug, Default)]
pub struct Crate {
    pub modules: Vec<Module>,
}

/// Words before the name of an item.
const ITEMS: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];
/// Imports may lead to imports; more than this are a circle of their own.
const DEEPEST: usize = 16;

impl Crate {
    /// Reads the sources from the root on, as `mod` declarations lead to them.
    pub fn read(root: &Path) -> Crate {
        let mut all = Crate::default();
        all.add_file(root, None, root.parent().unwrap());
        all
    }

    fn add_file(&mut self, file: &Path, parent: Option<usize>, folder: &Path) -> usize {
        let source = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.add_module(&tokens(&source), file, parent, folder)
    }

    /// `folder` holds the files of the modules that are declared in this one.
    fn add_module(&mut self, tokens: &[Token], file: &Path, parent: Option<usize>, folder: &Path) -> usize {
        let number = self.modules.len();
        self.modules.push(Module { file: file.into(), parent, ..Module::default() });
        let mut i = 0;
        while i < tokens.len() {
            let name = match tokens.get(i + 1) {
                Some(Token::Word(name)) => name.clone(),
                _ => String::new(),
            };
            if tokens[i].is_word("mod") && !name.is_empty() {
                let inner = folder.join(&name);
                if tokens.get(i + 2).is_some_and(|token| token.is_sign('{')) {
                    let end = end_of_block(tokens, i + 2);
                    let child = self.add_module(&tokens[i + 3..end - 1], file, Some(number), &inner);
                    self.modules[number].children.insert(name, child);
                    i = end;
                    continue;
                }
                let beside = folder.join(format!("{name}.rs"));
                let child = if beside.exists() { beside } else { inner.join("mod.rs") };
                let child = self.add_file(&child, Some(number), &inner);
                self.modules[number].children.insert(name, child);
                i += 3;
            } else if tokens[i].is_word("use") {
                let end = (i..tokens.len()).find(|&j| tokens[j].is_sign(';')).unwrap_or(tokens.len());
                let is_public = is_public(&tokens[..i]);
                let mut imports = Vec::new();
                read_imports(&tokens[i + 1..end], &[], &mut imports);
                let imports = imports.into_iter().map(|(name, path)| Import { name, path, is_public });
                self.modules[number].imports.extend(imports);
                i = end + 1;
            } else {
                i = self.add_words(number, tokens, i);
            }
        }
        number
    }

    /// Notes the path or word at `i`; the index behind it.
    fn add_words(&mut self, number: usize, tokens: &[Token], i: usize) -> usize {
        let module = &mut self.modules[number];
        let Token::Word(first) = &tokens[i] else { return i + 1 };
        if ITEMS.contains(&first.as_str()) {
            let sign = usize::from(tokens.get(i + 1).is_some_and(|token| token.is_sign('!')));
            if let Some(Token::Word(name)) = tokens.get(i + 1 + sign) {
                module.items.insert(name.clone());
                return i + 2 + sign;
            }
        }
        if i > 0 && (tokens[i - 1] == Token::Path || tokens[i - 1].is_sign('$')) {
            return i + 1; // The rest of `<T>::name`, or `$crate`.
        }
        let mut path = vec![first.clone()];
        let mut end = i + 1;
        while let (Some(Token::Path), Some(Token::Word(word))) = (tokens.get(end), tokens.get(end + 1)) {
            path.push(word.clone());
            end += 2;
        }
        if path.len() == 1 {
            module.words.insert(first.clone());
        } else {
            module.paths.push(path);
        }
        end
    }

    /// The file that defines what `path` names in this module; none for other crates and for what is not found.
    fn definer(&self, module: usize, path: &[String], depth: usize) -> Option<&Path> {
        let first = path.first()?;
        let start = match first.as_str() {
            "crate" => Some(0),
            "self" => Some(module),
            "super" => self.modules[module].parent,
            _ => None,
        };
        match start {
            Some(start) => self.find(start, &path[1..], depth),
            None => self.find(module, path, depth),
        }
    }

    fn find(&self, module: usize, path: &[String], depth: usize) -> Option<&Path> {
        let here = &self.modules[module];
        let Some(first) = path.first() else { return Some(&here.file) };
        if first == "super" {
            return self.find(here.parent?, &path[1..], depth);
        }
        if first == "*" {
            return Some(&here.file);
        }
        if let Some(&child) = here.children.get(first) {
            return self.find(child, &path[1..], depth);
        }
        if here.items.contains(first) {
            return Some(&here.file);
        }
        if depth == DEEPEST {
            return None;
        }
        let whole = |import: &Import| [&import.path[..], &path[1..]].concat();
        if let Some(import) = here.imports.iter().find(|import| import.name == *first) {
            return self.definer(module, &whole(import), depth + 1);
        }
        let all = here.imports.iter().filter(|import| import.name == "*" && import.path.len() > 1);
        all.filter_map(|import| {
            let path = [&import.path[..import.path.len() - 1], path].concat();
            self.definer(module, &path, depth + 1)
        })
        .next()
    }

    /// For each file, the files that define what it names. A name that is only passed on (`pub use`) is a name of
    /// whoever uses it, not of the file that passes it on.
    pub fn edges(&self) -> BTreeMap<PathBuf, BTreeSet<PathBuf>> {
        let mut edges = BTreeMap::<PathBuf, BTreeSet<PathBuf>>::new();
        for (number, module) in self.modules.iter().enumerate() {
            let own = edges.entry(module.file.clone()).or_default();
            let is_named = |import: &&Import| !import.is_public || module.words.contains(&import.name);
            let imports = module.imports.iter().filter(is_named).map(|import| &import.path);
            for path in imports.chain(&module.paths) {
                if let Some(file) = self.named_item(number, path) {
                    if file != module.file {
                        own.insert(file.into());
                    }
                }
            }
        }
        edges
    }

    /// As [`definer`](Self::definer), but nothing for the import of a whole module: the paths that begin with its name
    /// say what is used of it.
    fn named_item(&self, module: usize, path: &[String]) -> Option<&Path> {
        let is_module = self.module_at(module, path);
        if is_module {
            return None;
        }
        self.definer(module, path, 0)
    }

    fn module_at(&self, module: usize, path: &[String]) -> bool {
        let mut at = module;
        for (i, segment) in path.iter().enumerate() {
            at = match segment.as_str() {
                "crate" if i == 0 => 0,
                "self" if i == 0 => module,
                "super" => match self.modules[at].parent {
                    Some(parent) => parent,
                    None => return false,
                },
                name => match self.modules[at].children.get(name) {
                    Some(&child) => child,
                    None => return false,
                },
            };
        }
        true
    }
}

fn is_public(before: &[Token]) -> bool {
    match before.last() {
        Some(Token::Word(word)) => word == "pub",
        Some(Token::Sign(')')) => {
            let open = before.iter().rposition(|token| token.is_sign('('));
            open.is_some_and(|open| open > 0 && before[open - 1].is_word("pub"))
        }
        _ => false,
    }
}

fn end_of_block(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return i + 1;
        }
    }
    panic!("a block without an end");
}

/// Each name that a `use` binds, with its path: `a::{b, c::D as E}`.
fn read_imports(tokens: &[Token], before: &[String], found: &mut Vec<(String, Vec<String>)>) {
    let mut path = before.to_vec();
    let mut i = 0;
    while i < tokens.len() {
        match &tokens[i] {
            Token::Word(word) if word == "as" => {
                if let Some(Token::Word(name)) = tokens.get(i + 1) {
                    found.push((name.clone(), path));
                }
                return;
            }
            Token::Word(word) => path.push(word.clone()),
            Token::Sign('*') => path.push("*".into()),
            Token::Sign('{') => {
                let end = end_of_block(tokens, i);
                for part in split_at_commas(&tokens[i + 1..end - 1]) {
                    read_imports(part, &path, found);
                }
                return;
            }
            _ => {}
        }
        i += 1;
    }
    if path.len() > before.len() && path.last().is_some_and(|last| last == "self") && path.len() > 1 {
        path.pop();
    }
    if let Some(name) = path.last().cloned() {
        found.push((name, path));
    }
}

fn split_at_commas(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0usize;
    let mut parts = Vec::new();
    let mut from = 0;
    for (i, token) in tokens.iter().enumerate() {
        match token {
            Token::Sign('{') => depth += 1,
            Token::Sign('}') => depth -= 1,
            Token::Sign(',') if depth == 0 => {
                parts.push(&tokens[from..i]);
                from = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

#[test]
fn re_exports_are_followed_to_the_definition() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    fs::create_dir(folder.path().join("a")).unwrap();
    write("lib.rs", "mod a; mod b; pub use a::Own;");
    write("a/mod.rs", "mod c; mod d; pub use c::*; pub(crate) use d::{self, E}; pub struct Own;");
    write("a/c.rs", "pub struct C; impl C { fn own() -> super::Own { super::super::b::make() } }");
    write("a/d.rs", "pub enum E { F } #[cfg(test)] mod tests { use super::super::Own; }");
    write("b.rs", "use crate::a::{d, E as G}; use crate::a; fn make() -> crate::Own { d::H; a::C }");
    let edges = Crate::read(&folder.path().join("lib.rs")).edges();
    let short = |path: &PathBuf| path.strip_prefix(folder.path()).unwrap().to_str().unwrap().to_owned();
    let named = |file: &str| edges[&folder.path().join(file)].iter().map(short).collect::<Vec<_>>();
    assert!(named("lib.rs").is_empty() && named("a/mod.rs").is_empty() && named("a/d.rs").is_empty());
    assert_eq!(named("a/c.rs"), ["a/mod.rs", "b.rs"]);
    assert_eq!(named("b.rs"), ["a/c.rs", "a/d.rs", "a/mod.rs"]);
}

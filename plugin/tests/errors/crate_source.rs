//! The source of the plugin, searched for the places that make an [`Error`](../../src/error.rs).
//!
//! Invariant: every expression `Error::Variant { .. }` outside of tests becomes at least one [`Site`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{
    Attribute, Block, Expr, ExprStruct, ImplItemFn, ItemFn, ItemMod, Local, Pat, ReturnType, Signature, Stmt, Type,
};

use crate::makers::{self, ByCall, Maker};
use crate::texts::{self, Locals};

/// One way in which a variant comes about: the texts that each of its fields can have.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) variant: String,
    pub(crate) fields: BTreeMap<String, Vec<String>>,
}

/// A function whose errors are texts that somebody else puts into a variant.
#[derive(Debug)]
pub(crate) struct Fragments {
    /// Its file and name: `config/gateways.rs parse`.
    pub(crate) function: String,
    pub(crate) texts: Vec<String>,
}

/// All that the source says of errors.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) sites: Vec<Site>,
    pub(crate) fragments: Vec<Fragments>,
}

/// A parsed file.
pub(crate) fn parsed(path: &Path) -> syn::File {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Reads every file under `folder` but those that `skipped` names.
pub(crate) fn search(folder: &Path, skipped: &[&str]) -> Found {
    let mut found = Found::default();
    let mut constants = Constants(Locals::new());
    let sources: Vec<_> = files(folder).into_iter().map(|path| (parsed(&path), path)).collect();
    for (file, _) in &sources {
        constants.visit_file(file);
    }
    for (file, path) in &sources {
        let relative = path.strip_prefix(folder).expect("a file of the folder").to_string_lossy().into_owned();
        if skipped.iter().any(|skip| relative.starts_with(skip)) {
            continue;
        }
        let makers = makers::of_file(file, &constants.0);
        let locals = constants.0.clone();
        let mut reader = Reader { file: &relative, makers, constants: &constants.0, locals, found: &mut found };
        reader.visit_file(file);
    }
    found
}

/// What each command can fail with, in its own words: the file's name, and the texts of `bail!`, `anyhow!` and `context`.
pub(crate) fn commands(folder: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut commands: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files(folder) {
        let first = path.strip_prefix(folder).expect("a file of the folder").components().next().expect("a name");
        let command = Path::new(first.as_os_str()).file_stem().expect("a name").to_string_lossy().into_owned();
        let mut said = Said(BTreeSet::new());
        said.visit_file(&parsed(&path));
        commands.entry(command).or_default().extend(said.0);
    }
    commands.retain(|_, said| !said.is_empty());
    commands
}

/// Gathers the words of errors of `anyhow`.
struct Said(BTreeSet<String>);

impl<'ast> Visit<'ast> for Said {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        if mac.path.is_ident("bail") || mac.path.is_ident("anyhow") {
            let parser = syn::punctuated::Punctuated::<Expr, syn::Token![,]>::parse_terminated;
            let arguments = mac.parse_body_with(parser).expect("a format and its arguments");
            self.0.insert(texts::filled(&arguments.into_iter().collect::<Vec<_>>(), &Locals::new()));
        }
        visit::visit_macro(self, mac);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let is_context = call.method == "context" || call.method == "with_context" || call.method == "doing";
        if is_context && let Some(argument) = call.args.first() {
            // A placeholder alone is another's text, which is told where it is made.
            self.0.extend(
                texts::of(argument, &Locals::new())
                    .into_iter()
                    .filter(|text| !text.starts_with('<') || text.contains(' ')),
            );
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// The files of a folder, without those that hold a module's tests.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            all.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            all.push(path);
        }
    }
    all
}

/// Reads a file's functions one by one.
struct Reader<'a> {
    /// Its path below `src`.
    file: &'a str,
    makers: ByCall,
    constants: &'a Locals,
    locals: Locals,
    found: &'a mut Found,
}

impl Reader<'_> {
    fn function(&mut self, signature: &Signature, block: &Block, visit: impl FnOnce(&mut Self)) {
        let mut locals = LocalsOf(self.constants.clone());
        locals.visit_block(block);
        let outer = std::mem::replace(&mut self.locals, locals.0);
        if returns_text_of_problem(signature) {
            let mut says = Says { locals: &self.locals, texts: Vec::new() };
            says.visit_block(block);
            if let Some(Stmt::Expr(expr, None)) = block.stmts.last() {
                says.add(expr);
            }
            let function = format!("{} {}", self.file, signature.ident);
            self.found.fragments.push(Fragments { function, texts: says.texts });
        }
        visit(self);
        self.locals = outer;
    }

    /// Configurations are read there, by `Section`.
    fn reads_sections(&self) -> bool {
        ["config", "netavark"].iter().any(|place| self.file.starts_with(place))
    }

    fn call(&mut self, name: &str, arguments: &[&Expr]) {
        // Of the trait `Doing`: its one argument makes the text.
        if name == "doing" && arguments.len() == 1 {
            let fields = BTreeMap::from([("doing".to_owned(), texts::of(arguments[0], &self.locals))]);
            self.found.sites.push(Site { variant: "Kernel".into(), fields });
            return;
        }
        // Of `Section`, which other files call.
        let section = Maker {
            variant: "Config".into(),
            fields: BTreeMap::from([("key".into(), (Some(0), Vec::new())), ("problem".into(), (Some(1), Vec::new()))]),
        };
        let maker = match self.makers.get(&(name.to_owned(), arguments.len())) {
            Some(maker) => maker,
            None if name == "problem" && arguments.len() == 2 && self.reads_sections() => &section,
            None => return,
        };
        let locals = &self.locals;
        let fields = maker.fields.iter().map(|(field, (parameter, otherwise))| {
            let argument = parameter.and_then(|index| arguments.get(index));
            (field.clone(), argument.map_or_else(|| otherwise.clone(), |argument| texts::of(argument, locals)))
        });
        self.found.sites.push(Site { variant: maker.variant.clone(), fields: fields.collect() });
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.function(&function.sig, &function.block, |reader| visit::visit_item_fn(reader, function));
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.function(&function.sig, &function.block, |reader| visit::visit_impl_item_fn(reader, function));
    }

    /// Over a table of texts: what is in the loop happens once for each line.
    fn visit_expr_for_loop(&mut self, looped: &'ast syn::ExprForLoop) {
        let lines = table(&looped.expr, &self.locals);
        let Pat::Tuple(columns) = &*looped.pat else { return visit::visit_expr_for_loop(self, looped) };
        if lines.is_empty() {
            return visit::visit_expr_for_loop(self, looped);
        }
        let outer = self.locals.clone();
        for line in lines {
            let named = columns.elems.iter().map(|name| ident(name).unwrap_or_default());
            self.locals.extend(named.zip(line).map(|(name, value)| (name, vec![value])));
            self.visit_block(&looped.body);
        }
        self.locals = outer;
    }

    fn visit_expr_struct(&mut self, made: &'ast ExprStruct) {
        if let Some(variant) = variant_of(made) {
            let fields = made.fields.iter().map(|field| (member(&field.member), texts::of(&field.expr, &self.locals)));
            self.found.sites.push(Site { variant, fields: fields.collect() });
        }
        visit::visit_expr_struct(self, made);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let Expr::Path(path) = &*call.func
            && let Some(name) = path.path.get_ident()
        {
            self.call(&name.to_string(), &call.args.iter().collect::<Vec<_>>());
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        self.call(&call.method.to_string(), &call.args.iter().collect::<Vec<_>>());
        visit::visit_expr_method_call(self, call);
    }
}

/// The local variables within an expression.
pub(crate) fn locals_of(expr: &Expr, locals: &mut Locals) {
    let mut found = LocalsOf(std::mem::take(locals));
    found.visit_expr(expr);
    *locals = found.0;
}

/// The lines of an array of tuples, also of one in a local variable.
fn table(expr: &Expr, locals: &Locals) -> Vec<Vec<Expr>> {
    match expr {
        Expr::Array(array) => {
            let lines = array.elems.iter().map(|line| match line {
                Expr::Tuple(tuple) => tuple.elems.iter().cloned().collect(),
                _ => Vec::new(),
            });
            lines.collect()
        }
        Expr::Path(path) => {
            let values = path.path.get_ident().and_then(|name| locals.get(&name.to_string()));
            values.and_then(|values| values.first()).map(|value| table(value, locals)).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The constants of the crate that are texts or numbers.
struct Constants(Locals);

impl<'ast> Visit<'ast> for Constants {
    fn visit_item_const(&mut self, constant: &'ast syn::ItemConst) {
        if matches!(&*constant.expr, Expr::Lit(_)) {
            self.0.insert(constant.ident.to_string(), vec![(*constant.expr).clone()]);
        }
    }
}

/// What local variables a function has, beside the constants.
struct LocalsOf(Locals);

impl<'ast> Visit<'ast> for LocalsOf {
    fn visit_local(&mut self, local: &'ast Local) {
        if let (Some(name), Some(init)) = (ident(&local.pat), &local.init) {
            self.0.entry(name).or_default().push((*init.expr).clone());
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "push"
            && let (Expr::Path(path), Some(value)) = (&*call.receiver, call.args.first())
            && let Some(name) = path.path.get_ident()
        {
            self.0.entry(name.to_string()).or_default().push(value.clone());
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// The texts in a function that returns a problem in words.
struct Says<'a> {
    locals: &'a Locals,
    texts: Vec<String>,
}

impl Says<'_> {
    fn add(&mut self, expr: &Expr) {
        let said = texts::of(expr, self.locals).into_iter().filter(|text| text.contains(' '));
        self.texts.extend(said);
    }
}

impl<'ast> Visit<'ast> for Says<'_> {
    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let Expr::Path(path) = &*call.func
            && path.path.segments.last().is_some_and(|last| last.ident == "Err" || last.ident == "Some")
        {
            call.args.iter().for_each(|argument| self.add(argument));
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if ["map_err", "ok_or", "ok_or_else", "map", "then", "then_some", "map_or_else"]
            .iter()
            .any(|it| call.method == it)
        {
            call.args.iter().for_each(|argument| self.add(argument));
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// `Variant` of `Error::Variant { .. }`.
pub(crate) fn variant_of(made: &ExprStruct) -> Option<String> {
    let segments: Vec<_> = made.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    match segments.as_slice() {
        [.., of, variant] if of == "Error" => Some(variant.clone()),
        _ => None,
    }
}

/// `Option<String>` or `Result<.., String>`, within another `Result` or not: words about a problem.
fn returns_text_of_problem(signature: &Signature) -> bool {
    let ReturnType::Type(_, kind) = &signature.output else { return false };
    let inner = |kind: &Type| arguments_of(kind);
    let is_words = |kind: &Type| match (type_name(kind).as_str(), inner(kind).as_slice()) {
        ("Option", [only]) => type_name(only) == "String",
        ("Result", [_, error]) => type_name(error) == "String",
        _ => false,
    };
    is_words(kind) || (type_name(kind) == "Result" && inner(kind).first().is_some_and(is_words))
}

pub(crate) fn type_name(kind: &Type) -> String {
    match kind {
        Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

fn arguments_of(kind: &Type) -> Vec<Type> {
    let Type::Path(path) = kind else { return Vec::new() };
    let Some(last) = path.path.segments.last() else { return Vec::new() };
    let syn::PathArguments::AngleBracketed(arguments) = &last.arguments else { return Vec::new() };
    let types = arguments.args.iter().filter_map(|argument| match argument {
        syn::GenericArgument::Type(kind) => Some(kind.clone()),
        _ => None,
    });
    types.collect()
}

pub(crate) fn ident(pat: &Pat) -> Option<String> {
    match pat {
        Pat::Ident(name) => Some(name.ident.to_string()),
        Pat::Type(typed) => ident(&typed.pat),
        _ => None,
    }
}

pub(crate) fn member(member: &syn::Member) -> String {
    match member {
        syn::Member::Named(name) => name.to_string(),
        syn::Member::Unnamed(index) => index.index.to_string(),
    }
}

pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|cfg| cfg.is_ident("test"))
    })
}

//! `error.rs` itself: what variants there are, their codes, their sentences and what the reader is advised to do.
//!
//! Invariant: a variant without a code, a sentence or a remedy is a failed test, not an empty line.

use std::collections::BTreeMap;
use std::path::Path;

use syn::visit::{self, Visit};
use syn::{Arm, Expr, ExprMatch, Item, ItemFn, Lit, Meta, Pat};

use crate::crate_source::parsed;
use crate::texts::{self, Locals};

/// A variant of `Error`.
#[derive(Debug, Default)]
pub(crate) struct Variant {
    pub(crate) name: String,
    /// Its doc comment without the code: when it comes about.
    pub(crate) cause: String,
    /// Each with the values of fields that it is for, if not for all.
    pub(crate) codes: Vec<(u32, Vec<(String, String)>)>,
    /// What follows "failed to".
    pub(crate) sentence: String,
    pub(crate) remedies: Vec<String>,
}

/// All of `error.rs`.
pub(crate) struct Definition {
    pub(crate) variants: Vec<Variant>,
    /// What is advised where the kernel refused something: the error's name, or `other`.
    pub(crate) kernel: Vec<(String, String)>,
}

/// Reads the file.
pub(crate) fn read(path: &Path) -> Definition {
    let file = parsed(path);
    let mut functions = Functions::default();
    functions.visit_file(&file);
    let matched = |name: &str| functions.0.get(name).unwrap_or_else(|| panic!("{name} does not match on an error"));
    let (codes, remedies, sentences) = (matched("code"), matched("remedy"), matched("fmt"));
    let variants = file.items.iter().find_map(|item| match item {
        Item::Enum(item) if item.ident == "Error" => Some(&item.variants),
        _ => None,
    });
    let variants = variants.expect("the enum Error").iter().map(|variant| {
        let name = variant.ident.to_string();
        let of = |arms: &[Arm]| arms.iter().filter(|arm| names(&arm.pat).contains(&name)).cloned().collect::<Vec<_>>();
        Variant {
            cause: cause(&variant.attrs),
            codes: of(codes).iter().filter_map(|arm| Some((number(&arm.body)?, values(&arm.pat)))).collect(),
            sentence: of(sentences).iter().map(|arm| sentence(&arm.body)).next().unwrap_or_default(),
            remedies: of(remedies).iter().flat_map(|arm| texts::of(&arm.body, &Locals::new())).collect(),
            name,
        }
    });
    let kernel = matched("kernel_remedy").iter().map(|arm| {
        let names = names(&arm.pat);
        let errno = if names.is_empty() { "other".to_owned() } else { names.join(", ") };
        (errno, texts::of(&arm.body, &Locals::new()).concat())
    });
    Definition { variants: variants.collect(), kernel: kernel.collect() }
}

/// The arms of the first `match` in each function of the file.
#[derive(Default)]
struct Functions(BTreeMap<String, Vec<Arm>>);

impl Functions {
    fn note(&mut self, name: String, block: &syn::Block) {
        struct First(Option<Vec<Arm>>);
        impl<'ast> Visit<'ast> for First {
            fn visit_expr_match(&mut self, found: &'ast ExprMatch) {
                self.0.get_or_insert_with(|| found.arms.clone());
            }
        }
        let mut first = First(None);
        first.visit_block(block);
        if let Some(arms) = first.0 {
            self.0.insert(name, arms);
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.note(function.sig.ident.to_string(), &function.block);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.note(function.sig.ident.to_string(), &function.block);
    }
}

/// The last segments of the paths in a pattern: `Self::A { .. } | Self::B { .. }` gives A and B.
fn names(pat: &Pat) -> Vec<String> {
    let last = |path: &syn::Path| path.segments.last().map(|last| last.ident.to_string()).into_iter().collect();
    match pat {
        Pat::Or(or) => or.cases.iter().flat_map(names).collect(),
        Pat::Struct(it) => last(&it.path),
        Pat::TupleStruct(it) => last(&it.path),
        Pat::Path(it) => last(&it.path),
        Pat::Guard(guarded) => names(&guarded.pat),
        _ => Vec::new(),
    }
}

/// The fields of a pattern that must have a value: `NotReady { suffering: true, .. }`.
fn values(pat: &Pat) -> Vec<(String, String)> {
    let Pat::Struct(pat) = pat else { return Vec::new() };
    let fields = pat.fields.iter().filter_map(|field| match (&field.member, &*field.pat) {
        (syn::Member::Named(name), Pat::Lit(value)) => {
            Some((name.to_string(), texts::of(&Expr::Lit(value.clone()), &Locals::new()).concat()))
        }
        _ => None,
    });
    fields.collect()
}

/// Of `write!(f, "..")` and `f.write_str("..")`, whichever come in the arm, the texts together.
fn sentence(body: &Expr) -> String {
    struct Written(String);
    impl<'ast> Visit<'ast> for Written {
        fn visit_macro(&mut self, mac: &'ast syn::Macro) {
            if mac.path.is_ident("write") {
                let parser = syn::punctuated::Punctuated::<Expr, syn::Token![,]>::parse_terminated;
                let arguments = mac.parse_body_with(parser).expect("the arguments of write!");
                self.0.push_str(&texts::filled(&arguments.into_iter().skip(1).collect::<Vec<_>>(), &Locals::new()));
            }
        }

        fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
            if call.method == "write_str" {
                self.0.push_str(&texts::of(&call.args[0], &Locals::new()).concat());
            }
            visit::visit_expr_method_call(self, call);
        }

        fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
            // `list(f, items)`, the one other way to write.
            if matches!(&*call.func, Expr::Path(path) if path.path.is_ident("list")) {
                self.0.push_str("<problems>");
            }
        }
    }
    let mut written = Written(String::new());
    written.visit_expr(body);
    written.0
}

fn number(expr: &Expr) -> Option<u32> {
    match expr {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

/// "101: no address is free." gives "no address is free".
fn cause(attributes: &[syn::Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| match &attribute.meta {
        Meta::NameValue(doc) if doc.path.is_ident("doc") => Some(texts::of(&doc.value, &Locals::new()).concat()),
        _ => None,
    });
    let text = lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>().join(" ");
    let is_code = |code: &str| code.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once(": ") {
        Some((code, cause)) if is_code(code) => cause.trim_end_matches('.').to_owned(),
        _ => text.trim_end_matches('.').to_owned(),
    }
}

//! Functions and closures that make an error of their parameters, such as `let problem = |problem| Error::Config { key, problem }`.
//!
//! Invariant: whoever calls one is a place that makes an error.

use std::collections::BTreeMap;

use syn::visit::{self, Visit};
use syn::{Block, Expr, ExprStruct, ImplItemFn, ItemFn, ItemMod, Local, ReturnType, Signature};

use crate::crate_source::{ident, is_test, locals_of, member, type_name, variant_of};
use crate::texts::{self, Locals};

/// A function or closure that makes a variant of its parameters.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) variant: String,
    /// Which parameter each field is made of; `None` where it is made of something else, whose texts stand beside it.
    pub(crate) fields: BTreeMap<String, (Option<usize>, Vec<String>)>,
}

/// Makers by their names and the numbers of their parameters: a closure that calls a function often has its name.
pub(crate) type ByCall = BTreeMap<(String, usize), Maker>;

/// Those of a file.
pub(crate) fn of_file(file: &syn::File, constants: &Locals) -> ByCall {
    let mut makers = Makers { makers: ByCall::new(), constants };
    // Twice: the second time closures are found that call what the first time has found.
    makers.visit_file(file);
    makers.visit_file(file);
    makers.makers
}

/// Collects the functions and closures of a file that make errors of their parameters.
struct Makers<'a> {
    makers: ByCall,
    constants: &'a Locals,
}

impl Makers<'_> {
    fn note(&mut self, name: String, parameters: &[String], body: &Expr) {
        let mut locals = self.constants.clone();
        locals_of(body, &mut locals);
        let parameter_of = |expr: &Expr| {
            let texts = texts::of(expr, &locals);
            let [only] = texts.as_slice() else { return (None, texts) };
            let index = parameters.iter().position(|name| *only == format!("<{name}>"));
            (index, texts)
        };
        let mut structs = Structs(Vec::new());
        structs.visit_expr(body);
        let maker = match (structs.0.as_slice(), body) {
            ([made], _) => variant_of(made).map(|variant| {
                let fields = made.fields.iter().map(|field| (member(&field.member), parameter_of(&field.expr)));
                Maker { variant, fields: fields.collect() }
            }),
            ([], Expr::Call(call)) => self.called(call).map(|inner| {
                let fields = inner.fields.iter().map(|(field, (parameter, otherwise))| {
                    let argument = parameter.and_then(|index| call.args.get(index));
                    (field.clone(), argument.map_or_else(|| (None, otherwise.clone()), parameter_of))
                });
                Maker { variant: inner.variant.clone(), fields: fields.collect() }
            }),
            _ => None,
        };
        if let Some(maker) = maker.filter(|maker| maker.fields.values().any(|(parameter, _)| parameter.is_some())) {
            self.makers.insert((name, parameters.len()), maker);
        }
    }

    fn called(&self, call: &syn::ExprCall) -> Option<&Maker> {
        let Expr::Path(path) = &*call.func else { return None };
        self.makers.get(&(path.path.get_ident()?.to_string(), call.args.len()))
    }
}

impl<'ast> Visit<'ast> for Makers<'_> {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.note_function(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.note_function(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if let (Some(name), Some(init)) = (ident(&local.pat), &local.init)
            && let Expr::Closure(closure) = &*init.expr
        {
            let parameters: Vec<_> = closure.inputs.iter().map(|pat| ident(pat).unwrap_or_default()).collect();
            self.note(name, &parameters, &closure.body);
        }
        visit::visit_local(self, local);
    }
}

impl Makers<'_> {
    fn note_function(&mut self, signature: &Signature, block: &Block) {
        let returns_error = matches!(&signature.output, ReturnType::Type(_, kind) if type_name(kind) == "Error");
        if !returns_error {
            return;
        }
        let typed = signature.inputs.iter().filter_map(|input| match input {
            syn::FnArg::Typed(typed) => Some(ident(&typed.pat).unwrap_or_default()),
            syn::FnArg::Receiver(_) => None,
        });
        let parameters: Vec<_> = typed.collect();
        let body = Expr::Block(syn::ExprBlock { attrs: Vec::new(), label: None, block: block.clone() });
        self.note(signature.ident.to_string(), &parameters, &body);
    }
}

/// Gathers the variants made within an expression.
struct Structs<'a>(Vec<&'a ExprStruct>);

impl<'ast> Visit<'ast> for Structs<'ast> {
    fn visit_expr_struct(&mut self, made: &'ast ExprStruct) {
        if variant_of(made).is_some() {
            self.0.push(made);
        }
    }
}

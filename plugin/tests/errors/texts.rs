//! What a Rust expression that makes a text can say, read from its source: nothing is run.
//!
//! Invariant: what is only known at run time stands as `<name>`, never as a guess.

use std::collections::HashMap;

use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::{Expr, Lit, Macro, Member, Stmt, Token};

/// How far the names of local variables are followed.
const DEPTH: u32 = 4;

/// What names stand for: the constants of the crate and the local variables of a function, with the values pushed onto them.
pub(crate) type Locals = HashMap<String, Vec<Expr>>;

/// Stands for what has no name.
const NAMELESS: &str = "...";

/// All texts that `expr` can be.
pub(crate) fn of(expr: &Expr, locals: &Locals) -> Vec<String> {
    evaluate(expr, locals, DEPTH)
}

fn evaluate(expr: &Expr, locals: &Locals, depth: u32) -> Vec<String> {
    let inner = |expr: &Expr| evaluate(expr, locals, depth);
    match expr {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Str(text) => vec![text.value()],
            Lit::Int(number) => vec![number.base10_digits().to_owned()],
            Lit::Bool(value) => vec![value.value.to_string()],
            _ => vec![unknown(NAMELESS)],
        },
        Expr::Macro(call) => macro_texts(&call.mac, locals, depth),
        Expr::Closure(closure) => inner(&closure.body),
        Expr::Paren(paren) => inner(&paren.expr),
        Expr::Reference(reference) => inner(&reference.expr),
        Expr::Await(awaited) => inner(&awaited.base),
        Expr::Try(tried) => inner(&tried.expr),
        Expr::Return(returned) => returned.expr.as_deref().map(inner).unwrap_or_default(),
        Expr::Block(block) => last(&block.block.stmts).map(inner).unwrap_or_default(),
        Expr::If(branch) => {
            let mut texts = last(&branch.then_branch.stmts).map(inner).unwrap_or_default();
            texts.extend(branch.else_branch.iter().flat_map(|(_, other)| inner(other)));
            texts
        }
        Expr::Match(choice) => choice.arms.iter().flat_map(|arm| inner(&arm.body)).collect(),
        Expr::Tuple(tuple) => {
            tuple.elems.iter().map(inner).fold(vec![String::new()], |before, after| join(&before, &after))
        }
        Expr::Call(call) => match name_of(&call.func) {
            // `Some(..)`, `Box::new(..)`, `String::from(..)`: what is inside, if anything.
            name if name == "new" || name == "from" || name.starts_with(char::is_uppercase) => {
                call.args.iter().flat_map(inner).collect()
            }
            name => vec![unknown(&name)],
        },
        Expr::MethodCall(call) => match call.args.first() {
            Some(argument) if name_of(&call.receiver) == "self" => inner(argument),
            _ => inner(&call.receiver),
        },
        Expr::Field(field) => match &field.member {
            Member::Named(name) => vec![unknown(&name.to_string())],
            Member::Unnamed(_) => inner(&field.base),
        },
        Expr::Path(path) => {
            let name = name_of(expr);
            match locals.get(&name).filter(|_| depth > 0 && path.path.segments.len() == 1) {
                Some(values) => values.iter().flat_map(|value| evaluate(value, locals, depth - 1)).collect(),
                None => vec![unknown(&name)],
            }
        }
        Expr::Unary(unary) => inner(&unary.expr),
        _ => vec![unknown(NAMELESS)],
    }
}

/// `format!`, `vec!` and `concat!`; a macro that ends the program says nothing here.
fn macro_texts(mac: &Macro, locals: &Locals, depth: u32) -> Vec<String> {
    let arguments = Punctuated::<Expr, Token![,]>::parse_terminated.parse2(mac.tokens.clone()).unwrap_or_default();
    match mac.path.segments.last().map(|segment| segment.ident.to_string()).as_deref() {
        Some("format") => vec![filled(&arguments.into_iter().collect::<Vec<_>>(), locals)],
        Some("vec") => arguments.iter().flat_map(|item| evaluate(item, locals, depth)).collect(),
        Some("env" | "concat" | "matches") => vec![unknown(NAMELESS)],
        _ => Vec::new(),
    }
}

/// The text of `format!` and its kin: the first argument, with the others where its braces are.
pub(crate) fn filled(arguments: &[Expr], locals: &Locals) -> String {
    let Some(Expr::Lit(literal)) = arguments.first() else { return unknown(NAMELESS) };
    let Lit::Str(template) = &literal.lit else { return unknown(NAMELESS) };
    let mut named = HashMap::new();
    let mut positional = Vec::new();
    for argument in &arguments[1..] {
        match argument {
            Expr::Assign(assign) => drop(named.insert(name_of(&assign.left), argument_text(&assign.right, locals))),
            value => positional.push(argument_text(value, locals)),
        }
    }
    let (template, mut text, mut next) = (template.value(), String::new(), 0);
    let mut rest = template.as_str();
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let doubled = rest[at..].starts_with("{{") || rest[at..].starts_with("}}");
        if doubled || rest[at..].starts_with('}') {
            text.push_str(&rest[at..=at]);
            rest = &rest[at + 1 + usize::from(doubled)..];
            continue;
        }
        let end = at + rest[at..].find('}').expect("a closing brace: the compiler has seen it");
        let name = rest[at + 1..end].split(':').next().unwrap_or_default();
        let value = match name.parse::<usize>() {
            Ok(index) => positional.get(index).cloned(),
            Err(_) if name.is_empty() => {
                next += 1;
                positional.get(next - 1).cloned()
            }
            Err(_) => named.get(name).cloned().or_else(|| constant(name, locals)),
        };
        text.push_str(&value.unwrap_or_else(|| unknown(name)));
        rest = &rest[end + 1..];
    }
    text + rest
}

/// What an argument of `format!` is called, in brackets; a constant stands for itself.
fn argument_text(expr: &Expr, locals: &Locals) -> String {
    let constant = constant(&name_of(expr), locals);
    constant.or_else(|| evaluate(expr, &Locals::new(), 0).into_iter().next()).unwrap_or_else(|| unknown(NAMELESS))
}

/// The value of a constant, or of a variable that is just one text. Others keep their names, which say more.
fn constant(name: &str, locals: &Locals) -> Option<String> {
    match locals.get(name)?.as_slice() {
        [value @ Expr::Lit(_)] => evaluate(value, locals, 1).into_iter().next(),
        _ => None,
    }
}

/// The last segment of a path.
fn name_of(expr: &Expr) -> String {
    match expr {
        Expr::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Every text of `before` with every text of `after` behind it.
fn join(before: &[String], after: &[String]) -> Vec<String> {
    let pair = |one: &String, other: &String| if one.is_empty() { other.clone() } else { format!("{one} {other}") };
    before.iter().flat_map(|one| after.iter().map(move |other| pair(one, other))).collect()
}

fn last(statements: &[Stmt]) -> Option<&Expr> {
    match statements.last()? {
        Stmt::Expr(expr, _) => Some(expr),
        _ => None,
    }
}

fn unknown(name: &str) -> String {
    format!("<{}>", name.to_lowercase())
}

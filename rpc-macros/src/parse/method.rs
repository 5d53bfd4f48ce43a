//! One method: its signature's head, and what the parts make together.

use syn::{Attribute, FnArg, GenericParam, Receiver, ReceiverKind, ReturnType, Safety, Signature, TraitItemFn};

use super::{answer, argument};
use crate::attr::{self, ServiceKeys};
use crate::fault::Faults;
use crate::model::{Argument, Method, Role};

/// serde has tuples up to this size.
const MAX_ARGUMENTS: usize = 16;

/// The method, if it is sound.
pub(super) fn parse(method: &TraitItemFn, service: &ServiceKeys, faults: &mut Faults) -> Option<Method> {
    let before = faults.count();
    let signature = &method.sig;
    let keys = attr::method(&method.attrs, faults);
    for attr in method.attrs.iter().filter(|attr| attr.path().is_ident("cfg")) {
        faults.at(attr, "a method is not conditional: both sides must have the same methods; put `#[cfg]` on the trait");
    }
    for attr in method.attrs.iter().filter(|attr| attr::is_ours_perhaps(attr)) {
        faults.at(attr, "a method's keys are not conditional: they are read before `cfg_attr` is");
    }
    check_qualifiers(signature, faults);
    if let Some(body) = &method.default {
        faults.at(body, "a method of a service has no body: each implementor answers it");
    }
    check_receiver(signature, faults);
    let arguments = signature.inputs.iter().filter_map(|input| match input {
        FnArg::Typed(argument) => argument::parse(argument, faults),
        FnArg::Receiver(_) => None,
    });
    let arguments = arguments.collect::<Vec<_>>();
    check_together(signature, &arguments, faults);
    let answer = answer::parse(signature, &service.krate, faults);
    if keys.oneway {
        check_oneway(signature, &arguments, answer.as_ref(), faults);
    }
    if let Some(spawn) = keys.spawn.as_ref().filter(|_| service.local) {
        faults.at(spawn, "each call of a `local` service is a task already, and all of them share its thread: leave out `spawn`");
    }
    if faults.count() > before {
        return None;
    }
    let answer = answer?;
    let ReturnType::Type(_, output) = &signature.output else { return None };
    Some(Method {
        ident: signature.ident.clone(),
        name: keys.name.map_or_else(|| syn::ext::IdentExt::unraw(&signature.ident).to_string(), |name| name.value()),
        // Both follow from all methods together; `check` fills them in.
        hash: 0,
        index: 0,
        attrs: method.attrs.iter().filter(|attr| is_carried_over(attr)).cloned().collect(),
        arguments,
        oneway: keys.oneway,
        idempotent: keys.idempotent,
        spawn: keys.spawn.is_some(),
        output: (**output).clone(),
        certain: answer.certain,
        value: answer.value,
        error: answer.error,
    })
}

fn is_carried_over(attr: &Attribute) -> bool {
    attr.path().is_ident("doc") || attr.path().is_ident("deprecated")
}

fn check_qualifiers(signature: &Signature, faults: &mut Faults) {
    if signature.asyncness.is_none() {
        faults.at(signature.fn_token, format!("a method of a service is async: `async fn {}`", signature.ident));
    }
    if let Some(constness) = &signature.constness {
        faults.at(constness, "a method of a service is not `const`");
    }
    if let Safety::Unsafe(token) = &signature.safety {
        faults.at(token, "a method of a service is not `unsafe`: the other side could not keep its promise");
    }
    if let Some(abi) = &signature.abi {
        faults.at(abi, "a method of a service has no ABI of its own");
    }
    for parameter in &signature.generics.params {
        match parameter {
            GenericParam::Lifetime(lifetime) => {
                faults.at(lifetime, "a method of a service has no lifetimes: what it borrows lives as long as the call");
            }
            _ => faults.at(parameter, "a method of a service has no generics: the other side has to know its types"),
        }
    }
    if let Some(clause) = &signature.generics.where_clause {
        faults.at(clause, "a method of a service has no `where` clause");
    }
}

fn check_receiver(signature: &Signature, faults: &mut Faults) {
    let Some(FnArg::Receiver(receiver)) = signature.inputs.first() else {
        faults.at(&signature.ident, format!("a method of a service takes `&self`: `async fn {}(&self, ..)`", signature.ident));
        return;
    };
    if !matches!(receiver, Receiver { mutability: None, kind: ReceiverKind::Reference(_, None, None), .. }) {
        faults.at(receiver, "a method of a service takes `&self`: its calls run side by side");
    }
}

/// What the arguments may not be together.
fn check_together(signature: &Signature, arguments: &[Argument], faults: &mut Faults) {
    let mut stream = None::<&Argument>;
    let mut context = false;
    for argument in arguments {
        match (&argument.role, stream) {
            (Role::Stream(_), Some(first)) => {
                faults.at(&argument.ty, format!("a method takes one stream, and `{}` is one already", first.ident));
            }
            (Role::Stream(_), None) => stream = Some(argument),
            (Role::Wire(_), Some(stream)) => {
                faults.at(&argument.ident, format!("the stream `{}` comes after the other arguments", stream.ident));
            }
            (Role::Context, _) if context => faults.at(&argument.ty, "a method takes the context once"),
            (Role::Context, _) => context = true,
            (Role::Wire(_), None) => {}
        }
    }
    let mut wire = arguments.iter().filter(|argument| matches!(argument.role, Role::Wire(_)));
    if let Some(first_over) = wire.nth(MAX_ARGUMENTS) {
        let message = format!("`{}` has more than {MAX_ARGUMENTS} arguments: put them into a struct", signature.ident);
        faults.at(&first_over.ident, message);
    }
}

fn check_oneway(signature: &Signature, arguments: &[Argument], answer: Option<&answer::Answer>, faults: &mut Faults) {
    if answer.is_some_and(|answer| !answer.is_nothing()) {
        faults.at(&signature.output, "nothing comes back from a `oneway` method: it returns `rpc::Result<()>`");
    }
    for stream in arguments.iter().filter(|argument| matches!(argument.role, Role::Stream(_))) {
        faults.at(&stream.ty, "a `oneway` method takes no stream: nobody would hear that it was refused");
    }
}

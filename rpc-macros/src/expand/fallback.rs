//! What stands in place of a faulty trait: its faults, and as much of the expansion as is sound, so that the rest of the crate
//! is not buried under errors that follow from these.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{FnArg, ItemTrait, Pat, TraitItem, parse_quote};

use super::{siblings, trait_item};
use crate::fault::Faults;
use crate::parse::Parsed;

/// The item that could not even be read as a trait, untouched.
pub(super) fn unread(item: &TokenStream, faults: &Faults) -> TokenStream {
    let errors = faults.to_compile_errors();
    quote!(#item #errors)
}

/// The trait, and the client and the server of its sound methods. They do not implement it, for the others are missing.
pub(super) fn parsed(parsed: &Parsed, faults: &Faults) -> TokenStream {
    let errors = faults.to_compile_errors();
    let mut item = trait_item::item(&parsed.service);
    name_no_patterns(&mut item);
    let siblings = parsed.sound_head.then(|| siblings(&parsed.service));
    quote!(#errors #item #siblings)
}

/// The compiler refuses patterns in a trait once more.
fn name_no_patterns(item: &mut ItemTrait) {
    let methods = item.items.iter_mut().filter_map(|member| match member {
        TraitItem::Fn(method) if method.default.is_none() => Some(method),
        _ => None,
    });
    for argument in methods.flat_map(|method| &mut method.sig.inputs) {
        if let FnArg::Typed(argument) = argument
            && !matches!(&*argument.pat, Pat::Ident(name) if name.mutability.is_none())
        {
            *argument.pat = parse_quote!(_);
        }
    }
}

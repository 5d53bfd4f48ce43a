//! The trait as such: what stands before its braces.

use syn::{ItemTrait, TypeParamBound};

use crate::fault::Faults;

/// What the client, the server's `Arc` and the service can all have. `Send` and `Sync` are added anyway.
const SUPERTRAITS: [&str; 4] = ["Send", "Sync", "Debug", "Clone"];

pub(super) fn check(item: &ItemTrait, faults: &mut Faults) {
    if !item.generics.params.is_empty() {
        faults.at(&item.generics.params, "a service has no generics: name the types in its methods");
    }
    if let Some(clause) = &item.generics.where_clause {
        faults.at(clause, "a service has no `where` clause");
    }
    if let Some(unsafety) = &item.unsafety {
        faults.at(unsafety, "a service is a plain trait, without `unsafe`");
    }
    if let Some(auto) = &item.modifiers.auto_token {
        faults.at(auto, "a service is a plain trait, without `auto`");
    }
    for bound in &item.supertraits {
        supertrait(bound, faults);
    }
}

fn supertrait(bound: &TypeParamBound, faults: &mut Faults) {
    let known = match bound {
        TypeParamBound::Lifetime(lifetime) => lifetime.ident == "static",
        TypeParamBound::Trait(bound) => {
            bound.path.segments.last().is_some_and(|last| SUPERTRAITS.iter().any(|known| last.ident == known))
        }
        _ => false,
    };
    if !known {
        faults.at(bound, "a service cannot ask for this of its implementors: its client would have to be one of them");
    }
}

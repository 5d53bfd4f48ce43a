//! The trait as such: what stands before its braces.

use syn::punctuated::Punctuated;
use syn::{GenericParam, Generics, ItemTrait, Token, TypeParam, TypeParamBound, WherePredicate};

use crate::fault::Faults;
use crate::shape;

/// What the client, the server's `Arc` and the service can all have. `Send` and `Sync` are added anyway.
const SUPERTRAITS: [&str; 4] = ["Send", "Sync", "Debug", "Clone"];

/// The compiler asks for them one by one, at places that are not the user's.
const BOUNDS: &str = "has to travel, and the trait has to say so: `Serialize + DeserializeOwned + Send + Sync + 'static`, \
                      and `Clone` where a method borrows it";

pub(super) fn check(item: &ItemTrait, local: bool, faults: &mut Faults) {
    generics(&item.generics, faults);
    if let Some(unsafety) = &item.unsafety {
        faults.at(unsafety, "a service is a plain trait, without `unsafe`");
    }
    if let Some(auto) = &item.modifiers.auto_token {
        faults.at(auto, "a service is a plain trait, without `auto`");
    }
    for bound in &item.supertraits {
        supertrait(bound, local, faults);
    }
}

/// Types and constants may be left to whoever names the service; both sides have to name the same.
fn generics(generics: &Generics, faults: &mut Faults) {
    for parameter in &generics.params {
        match parameter {
            GenericParam::Type(ty) => {
                type_parameter(ty, faults);
                if ty.bounds.is_empty() && !shape::mentions(&generics.where_clause, &ty.ident.to_string()) {
                    faults.at(&ty.ident, format!("`{}` {BOUNDS}", ty.ident));
                }
            }
            GenericParam::Lifetime(lifetime) => {
                faults.at(lifetime, "a service has no lifetimes: what its methods borrow lives as long as the call");
            }
            GenericParam::Const(_) => {}
        }
    }
    for predicate in generics.where_clause.iter().flat_map(|clause| &clause.predicates) {
        if shape::mentions(predicate, "Self") {
            faults.at(predicate, "a service asks nothing of `Self` here: its client would have to be that too");
        }
        if let WherePredicate::Type(predicate) = predicate {
            sized(&predicate.bounds, faults);
        }
    }
}

fn type_parameter(ty: &TypeParam, faults: &mut Faults) {
    sized(&ty.bounds, faults);
    if shape::mentions(ty, "Self") {
        faults.at(ty, "a type parameter has nothing to do with `Self`: that is another type on the other side");
    }
}

fn sized(bounds: &Punctuated<TypeParamBound, Token![+]>, faults: &mut Faults) {
    for bound in bounds {
        if matches!(bound, TypeParamBound::Trait(bound) if bound.maybe.is_some()) {
            faults.at(bound, "a type parameter of a service has a size: its values travel");
        }
    }
}

fn supertrait(bound: &TypeParamBound, local: bool, faults: &mut Faults) {
    let known = match bound {
        TypeParamBound::Lifetime(lifetime) => lifetime.ident == "static",
        TypeParamBound::Trait(bound) => {
            let last = bound.path.segments.last();
            if local && last.is_some_and(|last| last.ident == "Send" || last.ident == "Sync") {
                faults.at(bound, "a `local` service stays on its thread: leave this out");
            }
            last.is_some_and(|last| SUPERTRAITS.iter().any(|known| last.ident == known))
        }
        _ => false,
    };
    if !known {
        faults.at(bound, "a service cannot ask for this of its implementors: its client would have to be one of them");
    }
}

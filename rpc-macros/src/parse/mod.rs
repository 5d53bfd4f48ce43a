//! Reads a trait into the model. Whatever is not sound becomes a fault and stays out of the model.

mod answer;
mod argument;
mod head;
mod method;
mod nested;

use std::collections::HashSet;

use syn::{ItemTrait, TraitItem};

use crate::attr::ServiceKeys;
use crate::fault::Faults;
use crate::model::{Method, Service};

/// A service with its sound methods.
pub(crate) struct Parsed {
    pub(crate) service: Service,
    /// Whether the trait as such can be a service; if not, nothing but the trait can stand.
    pub(crate) sound_head: bool,
}

/// Reads the trait, noting all that is wrong with it.
pub(crate) fn service(keys: ServiceKeys, mut item: ItemTrait, faults: &mut Faults) -> Parsed {
    let before = faults.count();
    head::check(&item, keys.local, faults);
    let sound_head = faults.count() == before;
    drop_duplicates(&mut item, faults);
    let methods = item.items.iter().filter_map(|item| member(item, &keys, faults)).collect();
    let ServiceKeys { krate, local } = keys;
    Parsed { service: Service { krate, local, item, methods }, sound_head }
}

/// The compiler would report the second of two methods once more, so it does not get to see it.
fn drop_duplicates(item: &mut ItemTrait, faults: &mut Faults) {
    let mut names = HashSet::new();
    item.items.retain(|item| {
        let TraitItem::Fn(method) = item else { return true };
        let new = names.insert(method.sig.ident.clone());
        if !new {
            faults.at(&method.sig.ident, format!("the method `{}` is declared twice", method.sig.ident));
        }
        new
    });
}

fn member(item: &TraitItem, keys: &ServiceKeys, faults: &mut Faults) -> Option<Method> {
    match item {
        TraitItem::Fn(method) => return method::parse(method, keys, faults),
        TraitItem::Const(constant) => faults.at(&constant.ident, "a service has methods only: a constant cannot be called"),
        TraitItem::Type(ty) => {
            faults.at(&ty.ident, "a service has methods only: the client cannot know a type that the implementor chooses");
        }
        TraitItem::Macro(mac) => faults.at(&mac.mac, "a service has methods only: it is read before macros in it are expanded"),
        other => faults.at(other, "a service has methods only"),
    }
    None
}

#[cfg(test)]
mod tests;

//! The rules between methods, and the ranks that follow from them.

use std::collections::HashMap;

use syn::Ident;

use crate::fault::Faults;
use crate::hash;
use crate::model::{Method, Service};

/// Names, hashes and ranks the methods. A method that repeats another one is a fault, and is left out.
pub(crate) fn check(service: &mut Service, faults: &mut Faults) {
    let name = syn::ext::IdentExt::unraw(&service.item.ident).to_string();
    for method in &mut service.methods {
        method.hash = hash::method(&name, &method.name);
    }
    drop_repeated(&mut service.methods, faults);
    let mut hashes = service.methods.iter().map(|method| method.hash).collect::<Vec<_>>();
    hashes.sort_unstable();
    for method in &mut service.methods {
        let rank = hashes.partition_point(|hash| *hash < method.hash);
        method.index = u32::try_from(rank).expect("a trait has fewer than 2^32 methods");
    }
}

fn drop_repeated(methods: &mut Vec<Method>, faults: &mut Faults) {
    let mut taken = HashMap::<u64, (Ident, String)>::new();
    methods.retain(|method| {
        let Some((other, name)) = taken.get(&method.hash) else {
            taken.insert(method.hash, (method.ident.clone(), method.name.clone()));
            return true;
        };
        if *name == method.name {
            faults.at(&method.ident, format!("`{}` and `{other}` have the same name on the wire: `{name}`", method.ident));
        } else {
            let hint = "pin another name with `#[rpc(name = \"..\")]`";
            faults.at(&method.ident, format!("`{}` and `{other}` have the same hash: {hint}", method.ident));
        }
        false
    });
}

#[cfg(test)]
mod tests {
    use quote::quote;

    use super::*;
    use crate::parse;

    fn checked(item: proc_macro2::TokenStream) -> (Service, Vec<String>) {
        let mut faults = Faults::default();
        let item = syn::parse2(item).expect("the test's trait is a trait");
        let parsed = parse::service(crate::attr::service(Default::default(), &mut faults), item, &mut faults);
        (parsed.service, faults.messages())
    }

    fn ranks(service: &Service) -> Vec<(String, u32)> {
        service.methods.iter().map(|method| (method.name.clone(), method.index)).collect()
    }

    #[test]
    fn ranks_do_not_depend_on_the_order_of_the_methods() {
        let (mut service, _) = checked(quote! {
            trait Kv {
                async fn get(&self) -> rpc::Result<()>;
                async fn put(&self) -> rpc::Result<()>;
                async fn delete(&self) -> rpc::Result<()>;
            }
        });
        check(&mut service, &mut Faults::default());
        let mut forward = ranks(&service);
        service.methods.reverse();
        check(&mut service, &mut Faults::default());
        let mut backward = ranks(&service);
        forward.sort();
        backward.sort();
        assert_eq!(forward, backward);
        let mut indices = forward.iter().map(|(_, index)| *index).collect::<Vec<_>>();
        indices.sort_unstable();
        assert_eq!(indices, [0, 1, 2]);
    }

    #[test]
    fn a_pinned_name_keeps_the_hash_of_a_renamed_method() {
        let (mut before, _) = checked(quote!(
            trait Kv {
                async fn get(&self) -> rpc::Result<()>;
            }
        ));
        let (mut after, _) = checked(quote!(
            trait Kv {
                #[rpc(name = "get")]
                async fn fetch(&self) -> rpc::Result<()>;
            }
        ));
        check(&mut before, &mut Faults::default());
        check(&mut after, &mut Faults::default());
        assert_eq!(before.methods[0].hash, after.methods[0].hash);
    }

    #[test]
    fn a_name_pinned_onto_another_method_is_a_fault() {
        let (mut service, _) = checked(quote! {
            trait Kv {
                async fn get(&self) -> rpc::Result<()>;
                #[rpc(name = "get")]
                async fn fetch(&self) -> rpc::Result<()>;
            }
        });
        let mut faults = Faults::default();
        check(&mut service, &mut faults);
        assert_eq!(faults.messages(), ["`fetch` and `get` have the same name on the wire: `get`"]);
        assert_eq!(service.methods.len(), 1);
    }

    #[test]
    fn two_names_of_one_hash_are_a_fault_at_the_second() {
        let (mut service, _) = checked(quote! {
            trait Kv {
                async fn get(&self) -> rpc::Result<()>;
                async fn put(&self) -> rpc::Result<()>;
            }
        });
        // Real collisions are out of reach of a test, so this one is made.
        let mut faults = Faults::default();
        for method in &mut service.methods {
            method.hash = 7;
        }
        drop_repeated(&mut service.methods, &mut faults);
        assert_eq!(faults.messages(), ["`put` and `get` have the same hash: pin another name with `#[rpc(name = \"..\")]`"]);
    }
}

//! The table of methods, by rank.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::Ident;
use syn::ext::IdentExt;

use crate::hash;
use crate::model::{Method, Service};

/// The body of a function that returns the service's one table.
pub(super) fn table(service: &Service) -> TokenStream {
    let private = service.private();
    let name = service.item.ident.unraw().to_string();
    let ranked = service.ranked();
    let fingerprint = hash::fingerprint(ranked.iter().map(|method| method.hash));
    let rows = ranked.iter().map(|method| row(&private, method));
    quote_spanned! {Span::mixed_site()=>
        static INFO: #private::ServiceInfo = #private::ServiceInfo {
            name: #name,
            methods: &[#(#rows),*],
            fingerprint: #fingerprint,
        };
        &INFO
    }
}

fn row(private: &TokenStream, method: &Method) -> TokenStream {
    let Method { name, hash, idempotent, spawn, .. } = method;
    // The variants of the model are those of the facade.
    let kind = Ident::new(&format!("{:?}", method.kind()), Span::call_site());
    quote! {
        #private::MethodInfo {
            name: #name,
            hash: #hash,
            kind: #private::MethodKind::#kind,
            idempotent: #idempotent,
            spawn: #spawn,
        }
    }
}

//! The dyn-safe twin of the trait: what a client in the same process holds. Private, for a public one with the same methods would
//! be ambiguous beside the trait.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Lifetime, Type};

use super::{allow_deprecated, names, near};
use crate::model::{Argument, Method, Service};

/// The twin, the twin of each implementor, and the way from a server to its local client.
pub(super) fn twin(service: &Service) -> TokenStream {
    let private = service.private();
    let name = &service.item.ident;
    let (twin, client, server) = (service.twin(), service.client(), service.server());
    let allow = allow_deprecated(service);
    let declared = service.methods.iter().map(|method| {
        let head = head(method);
        quote!(#head;)
    });
    let boxed = service.methods.iter().map(|method| {
        let (head, ident, names) = (head(method), &method.ident, names(method));
        let call = quote_spanned!(near(ident)=> <__S as #name>::#ident(self, #(#names),*));
        if method.answer_item().is_some() {
            // The deadline of a call with a stream for its answer is the stream's too.
            quote_spanned!(near(ident)=> #head { ::std::boxed::Box::pin(async move { #private::bounded(#call.await) }) })
        } else {
            quote_spanned!(near(ident)=> #head { ::std::boxed::Box::pin(#call) })
        }
    });
    quote_spanned! {Span::mixed_site()=>
        #[allow(clippy::all)]
        trait #twin: ::core::marker::Send + ::core::marker::Sync {
            #(#declared)*
        }
        #allow
        #[automatically_derived]
        impl<__S: #name + 'static> #twin for __S {
            #(#boxed)*
        }
        #[automatically_derived]
        impl<__S: #name + 'static> #private::IntoLocal<#client> for #server<__S> {
            fn into_local(self) -> #client {
                #client { backend: #private::Backend::Local(self.service) }
            }
        }
    }
}

/// The head of a twin's method. The service and what the caller lends live as long as the future.
fn head(method: &Method) -> TokenStream {
    let (twin, output) = (method.twin(), &method.output);
    let parameters = method.arguments.iter().map(parameter);
    quote_spanned! {near(&method.ident)=>
        fn #twin<'life>(&'life self, #(#parameters),*) -> ::core::pin::Pin<
            ::std::boxed::Box<dyn ::core::future::Future<Output = #output> + ::core::marker::Send + 'life>
        >
    }
}

fn parameter(argument: &Argument) -> TokenStream {
    let mut ty = argument.ty.clone();
    lend(&mut ty);
    let ident = &argument.ident;
    quote!(#ident: #ty)
}

fn lend(ty: &mut Type) {
    match ty {
        Type::Reference(reference) => reference.lifetime = Some(Lifetime::new("'life", Span::mixed_site())),
        Type::Paren(inner) => lend(&mut inner.elem),
        Type::Group(inner) => lend(&mut inner.elem),
        _ => {}
    }
}

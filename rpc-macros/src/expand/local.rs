//! The dyn-safe twin of the trait: what a client in the same process holds. Private, for a public one with the same methods would
//! be ambiguous beside the trait.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::{Lifetime, Type};

use super::{allow_deprecated, form, generics, names, near, outcome};
use crate::model::{Argument, Method, Role, Service};

/// The twin, the twin of each implementor, and the way from a server to its local client.
pub(super) fn twin(service: &Service) -> TokenStream {
    let private = service.private();
    let (twin, implementor) = (service.twin(), format_ident!("__S"));
    let (parameters, filter) = (&service.item.generics, &service.item.generics.where_clause);
    let declared = generics::declared_with(service, generics::implementor(service, &implementor));
    let (named, client) = (generics::twin(service), generics::client(service));
    let server = generics::server(service, &implementor);
    let allow = allow_deprecated(service);
    let heads = service.methods.iter().map(|method| head(service, method));
    let methods = service.methods.iter().map(|method| {
        let (head, call) = (head(service, method), if service.local { sent(service, method) } else { borrowed(service, method) });
        quote!(#head { #call })
    });
    let here = Span::mixed_site();
    // A service that stays on its thread is reached by the way to it, which is `Send`.
    let (target, backend, unused) = if service.local {
        // The context of the caller is the ambient one over there.
        let unused = quote!(#[allow(unused_variables)]);
        (quote!(#private::Actor<#implementor>), quote_spanned!(here=> ::std::sync::Arc::new(self.service)), Some(unused))
    } else {
        (quote!(#implementor), quote_spanned!(here=> self.service), None)
    };
    let client_name = service.client();
    quote_spanned! {here=>
        #[allow(clippy::all)]
        trait #twin #parameters: ::core::marker::Send + ::core::marker::Sync #filter {
            #(#heads;)*
        }
        #allow
        #unused
        #[automatically_derived]
        impl #declared #named for #target #filter {
            #(#methods)*
        }
        #allow
        #[automatically_derived]
        impl #declared #private::IntoLocal<#client> for #server #filter {
            fn into_local(self) -> #client {
                #client_name { backend: #private::Backend::Local(#backend) }
            }
        }
    }
}

/// The call of a service that is right here, with what the caller lends.
fn borrowed(service: &Service, method: &Method) -> TokenStream {
    let (bound, ident, names) = (generics::bound(service), &method.ident, names(method));
    let call = quote_spanned!(near(ident)=> <__S as #bound>::#ident(self, #(#names),*));
    let answer = outcome::into_result(&service.private(), method, quote_spanned!(near(ident)=> #call.await));
    match method.answer_item() {
        Some(_) => within_deadline(service, method, &answer),
        None if method.certain => quote_spanned!(near(ident)=> ::std::boxed::Box::pin(#call)),
        None => quote_spanned!(near(ident)=> ::std::boxed::Box::pin(async move { #answer })),
    }
}

/// The call of a service on its thread, with copies of what the caller lends.
fn sent(service: &Service, method: &Method) -> TokenStream {
    let private = service.private();
    let (bound, ident) = (generics::bound(service), &method.ident);
    let copied = method.arguments.iter().filter(|argument| !matches!(argument.role, Role::Stream(_)));
    let copied = copied.filter_map(|argument| form::owned(&private, argument));
    let context = method.context().map(|argument| {
        let ident = &argument.ident;
        quote_spanned!(near(ident)=> let #ident = #private::Context::current();)
    });
    let handed_on = method.arguments.iter().map(form::handed_on);
    let answer = quote_spanned!(near(ident)=> <__S as #bound>::#ident(&*service, #(#handed_on),*).await);
    let answer = outcome::into_result(&private, method, answer);
    let call = quote_spanned! {near(ident)=>
        self.direct(move |service| ::std::boxed::Box::pin(async move {
            #context
            #answer
        }))
    };
    let call = match method.answer_item() {
        Some(_) => within_deadline(service, method, &quote_spanned!(near(ident)=> #call.await)),
        None => call,
    };
    quote!(#(#copied)* #call)
}

/// The deadline of a call with a stream for its answer is the stream's too.
fn within_deadline(service: &Service, method: &Method, answer: &TokenStream) -> TokenStream {
    let private = service.private();
    quote_spanned!(near(&method.ident)=> ::std::boxed::Box::pin(async move { #private::bounded(#answer) }))
}

/// The head of a twin's method. The service and what the caller lends live as long as the future.
fn head(service: &Service, method: &Method) -> TokenStream {
    let (twin, output) = (method.twin(), outcome::result_type(service, method));
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

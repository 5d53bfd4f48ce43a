//! The server: one `match` on the rank of the method.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};

use super::{allow_deprecated, form, near};
use crate::model::{Form, Kind, Method, Role, Service};
use crate::shape;

pub(super) fn server(service: &Service) -> TokenStream {
    let (ty, dispatch) = (ty(service), dispatch(service));
    quote!(#ty #dispatch)
}

fn ty(service: &Service) -> TokenStream {
    let (name, vis, server) = (&service.item.ident, &service.item.vis, service.server());
    let label = server.to_string();
    let doc = format!("Serves a [`{name}`]. Clones share the service.");
    let doc_new = format!("Takes the [`{name}`] to serve; an `Arc` of one is one too.");
    quote_spanned! {Span::mixed_site()=>
        #[doc = #doc]
        #[allow(dead_code)]
        #vis struct #server<S> {
            service: ::std::sync::Arc<S>,
        }
        #[allow(dead_code)]
        impl<S: #name + 'static> #server<S> {
            #[doc = #doc_new]
            #vis fn new(service: S) -> Self {
                Self { service: ::std::sync::Arc::new(service) }
            }
        }
        #[automatically_derived]
        impl<S> ::core::clone::Clone for #server<S> {
            fn clone(&self) -> Self {
                Self { service: ::core::clone::Clone::clone(&self.service) }
            }
        }
        #[automatically_derived]
        impl<S> ::core::fmt::Debug for #server<S> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#label).finish_non_exhaustive()
            }
        }
    }
}

fn dispatch(service: &Service) -> TokenStream {
    let private = service.private();
    let (name, client, server) = (&service.item.ident, service.client(), service.server());
    let allow = allow_deprecated(service);
    let arms = service.methods.iter().map(|method| arm(service, method));
    quote_spanned! {Span::mixed_site()=>
        #allow
        #[automatically_derived]
        impl<__S: #name + 'static> #private::Service for #server<__S> {
            fn info(&self) -> &'static #private::ServiceInfo {
                <#client as #private::Client>::info()
            }
            fn call(&self, request: #private::Request) -> #private::ReplyFuture {
                let service = ::core::clone::Clone::clone(&self.service);
                match request.method() {
                    #(#arms)*
                    _ => ::std::boxed::Box::pin(async move { request.unknown_method() }),
                }
            }
        }
    }
}

/// One method. The future owns the frame before it is polled, so the arguments may borrow from it over every await.
fn arm(service: &Service, method: &Method) -> TokenStream {
    let private = service.private();
    let name = &service.item.ident;
    let Method { ident, index, .. } = method;
    let (mutable, stream) = take_stream(&private, method).unzip();
    let (names, types): (Vec<_>, Vec<_>) =
        method.wire().map(|(argument, form)| (&argument.ident, form::wire_type(&private, argument, form))).unzip();
    let context = method.context().map(|argument| {
        let ident = &argument.ident;
        quote_spanned!(near(ident)=> let #ident = &request.context();)
    });
    let passed = method.arguments.iter().map(|argument| match &argument.role {
        Role::Wire(form) => form::decoded(&argument.ident, form),
        Role::Stream(_) | Role::Context => form::decoded(&argument.ident, &Form::Owned),
    });
    let reply = reply(&private, method);
    quote_spanned! {near(ident)=>
        #index => ::std::boxed::Box::pin(async move {
            #mutable
            #stream
            let result = {
                let (#(#names,)*) = match request.decode::<(#(#types,)*)>() {
                    ::core::result::Result::Ok(arguments) => arguments,
                    ::core::result::Result::Err(fault) => return #private::Reply::fault(fault),
                };
                #context
                let result = <__S as #name>::#ident(&*service, #(#passed),*).await;
                result
            };
            #reply
        }),
    }
}

fn take_stream(private: &TokenStream, method: &Method) -> Option<(TokenStream, TokenStream)> {
    let (argument, item) = method.stream()?;
    let ident = &argument.ident;
    let wire = form::answer_type(private, item);
    let mutable = quote_spanned!(near(ident)=> let mut request = request;);
    let take = quote_spanned!(near(item)=> let #ident = request.take_stream::<#wire, #item>(););
    Some((mutable, take))
}

fn reply(private: &TokenStream, method: &Method) -> TokenStream {
    let here = near(&method.output);
    match (method.kind(), method.answer_item()) {
        (Kind::OneWay, _) => quote_spanned!(here=> request.done(result)),
        (_, Some(item)) => {
            let wire = form::answer_type(private, item);
            quote_spanned!(here=> request.reply_stream::<_, #wire, _, _>(result))
        }
        (_, None) if shape::is_byte_vec(&method.value) || shape::is_opt_byte_vec(&method.value) => {
            let wire = form::answer_type(private, &method.value);
            quote_spanned!(here=> request.reply(result.map(#wire)))
        }
        (_, None) => quote_spanned!(here=> request.reply(result)),
    }
}

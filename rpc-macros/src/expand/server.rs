//! The server: one `match` on the rank of the method.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::Ident;

use super::{allow_deprecated, form, generics, near, outcome, sibling_docs};
use crate::model::{Kind, Method, Role, Service};

pub(super) fn server(service: &Service) -> TokenStream {
    let (ty, dispatch) = (ty(service), dispatch(service));
    quote!(#ty #dispatch)
}

fn ty(service: &Service) -> TokenStream {
    let (vis, server) = (&service.item.vis, service.server());
    let implementor = generics::implementor_name(service);
    let parameters = generics::of_server(service);
    let (declared, named, _) = parameters.split_for_impl();
    let (field, value) = generics::marker(service).unzip();
    let label = server.to_string();
    let doc = sibling_docs(service, &format!("Serves a [`{}`]. Clones share the service.", service.item.ident));
    let holder = holder(service);
    let new = new(service, &implementor);
    quote_spanned! {Span::mixed_site()=>
        #doc
        #[allow(dead_code)]
        #vis struct #server #parameters {
            service: #holder<#implementor>,
            #field
        }
        #new
        #[automatically_derived]
        impl #declared ::core::clone::Clone for #server #named {
            fn clone(&self) -> Self {
                Self { service: ::core::clone::Clone::clone(&self.service), #value }
            }
        }
        #[automatically_derived]
        impl #declared ::core::fmt::Debug for #server #named {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#label).finish_non_exhaustive()
            }
        }
    }
}

/// What shares the service: its `Arc`, or the way to its thread.
fn holder(service: &Service) -> TokenStream {
    let private = service.private();
    if service.local { quote!(#private::Actor) } else { quote!(::std::sync::Arc) }
}

fn new(service: &Service, implementor: &Ident) -> TokenStream {
    let (name, vis, filter) = (&service.item.ident, &service.item.vis, &service.item.generics.where_clause);
    let declared = generics::declared_with(service, generics::implementor(service, implementor));
    let server = generics::server(service, implementor);
    let value = generics::marker(service).map(|(_, value)| value);
    let allow = allow_deprecated(service);
    let holder = holder(service);
    let (doc, track_caller) = if service.local {
        let doc = format!(
            "Gives the [`{name}`] to the `tokio::task::LocalSet` that this is called in: there it stays, and there its handlers run.\n\n\
             # Panics\nOutside of a `LocalSet`."
        );
        (doc, Some(quote!(#[track_caller])))
    } else {
        (format!("Takes the [`{name}`] to serve; an `Arc` of one is one too."), None)
    };
    quote_spanned! {Span::mixed_site()=>
        #allow
        #[allow(dead_code)]
        impl #declared #server #filter {
            #[doc = #doc]
            #track_caller
            #vis fn new(service: #implementor) -> Self {
                Self { service: #holder::new(service), #value }
            }
        }
    }
}

fn dispatch(service: &Service) -> TokenStream {
    let private = service.private();
    let implementor = format_ident!("__S");
    let declared = generics::declared_with(service, generics::implementor(service, &implementor));
    let (client, server) = (generics::client(service), generics::server(service, &implementor));
    let filter = &service.item.generics.where_clause;
    let allow = allow_deprecated(service);
    let arms = service.methods.iter().map(|method| arm(service, method));
    let here = Span::mixed_site();
    let start = quote_spanned! {here=>
        match request.method() {
            #(#arms)*
            _ => ::std::boxed::Box::pin(async move { request.unknown_method() }),
        }
    };
    let start = if service.local {
        quote_spanned!(here=> self.service.serve(move |service| #start))
    } else {
        quote_spanned!(here=> let service = ::core::clone::Clone::clone(&self.service); #start)
    };
    quote_spanned! {here=>
        #allow
        #[automatically_derived]
        impl #declared #private::Service for #server #filter {
            fn info(&self) -> &'static #private::ServiceInfo {
                <#client as #private::Client>::info()
            }
            fn call(&self, request: #private::Request) -> #private::ReplyFuture {
                #start
            }
        }
    }
}

/// One method. The future owns the frame before it is polled, so the arguments may borrow from it over every await.
fn arm(service: &Service, method: &Method) -> TokenStream {
    let private = service.private();
    let bound = generics::bound(service);
    let Method { ident, index, .. } = method;
    let (mutable, stream) = take_stream(&private, method).unzip();
    let (names, types): (Vec<_>, Vec<_>) =
        method.wire().map(|(argument, form)| (&argument.ident, form::wire_type(&private, argument, form))).unzip();
    let context = method.context().map(|argument| {
        let ident = &argument.ident;
        quote_spanned!(near(ident)=> let #ident = &request.context();)
    });
    let passed = method.arguments.iter().map(|argument| match &argument.role {
        Role::Wire(form) => form::decoded(&private, argument, form),
        Role::Stream(_) | Role::Context => argument.ident.to_token_stream(),
    });
    let called = quote_spanned!(near(ident)=> <__S as #bound>::#ident(&*service, #(#passed),*).await);
    let called = outcome::into_result(&private, method, called);
    let (checked, reply) = (outcome::checked_errors(&private, method), reply(&private, method));
    quote_spanned! {near(ident)=>
        #index => ::std::boxed::Box::pin(async move {
            #checked
            #mutable
            #stream
            let result = {
                let (#(#names,)*) = match request.decode::<(#(#types,)*)>() {
                    ::core::result::Result::Ok(arguments) => arguments,
                    ::core::result::Result::Err(fault) => return #private::Reply::fault(fault),
                };
                #context
                let result = #called;
                result
            };
            #reply
        }),
    }
}

fn take_stream(private: &TokenStream, method: &Method) -> Option<(TokenStream, TokenStream)> {
    let (argument, item) = method.stream()?;
    let ident = &argument.ident;
    let wire = form::item_type(private, item);
    let mutable = quote_spanned!(near(ident)=> let mut request = request;);
    let take = quote_spanned!(near(item)=> let #ident = request.take_stream::<#wire, #item>(););
    Some((mutable, take))
}

fn reply(private: &TokenStream, method: &Method) -> TokenStream {
    let (here, place) = (near(&method.output), outcome::place(method));
    match (method.kind(), method.answer_item()) {
        (Kind::OneWay, _) => quote_spanned!(here=> request.done(result)),
        (_, Some(item)) => {
            let wire = form::answer_type(private, item);
            let (function, answer) = (quote_spanned!(place=> reply_stream::<_, #wire, _, _>), Ident::new("answer", place));
            quote_spanned!(here=> let #answer = result; request.#function(#answer))
        }
        (_, None) => {
            let (function, answer) = (Ident::new("reply", place), Ident::new("answer", place));
            let given = form::given(private, &method.value).map(|given| quote_spanned!(here=> .map(#given)));
            quote_spanned!(here=> let #answer = result #given; request.#function(#answer))
        }
    }
}

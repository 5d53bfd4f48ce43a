//! The client: a call for each method, and the trait again.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};

use super::{allow_deprecated, form, generics, info, names, near, outcome, parameters, sibling_docs};
use crate::model::{Argument, Kind, Method, Role, Service};

/// The type, its calls, and how it is made.
pub(super) fn client(service: &Service) -> TokenStream {
    let (ty, calls) = (ty(service), calls(service));
    quote!(#ty #calls)
}

fn ty(service: &Service) -> TokenStream {
    let private = service.private();
    let (name, vis, client, twin) = (&service.item.ident, &service.item.vis, service.client(), generics::twin(service));
    let (parameters, filter) = (&service.item.generics, &service.item.generics.where_clause);
    let (declared, named) = (generics::declared(service), generics::client(service));
    let label = client.to_string();
    let table = info::table(service);
    let doc = sibling_docs(service, &format!("Calls a [`{name}`], here or elsewhere. Clones share its session."));
    quote_spanned! {Span::mixed_site()=>
        #doc
        #[allow(dead_code)]
        #vis struct #client #parameters #filter {
            backend: #private::Backend<dyn #twin>,
        }
        #[automatically_derived]
        impl #declared ::core::clone::Clone for #named #filter {
            fn clone(&self) -> Self {
                Self { backend: ::core::clone::Clone::clone(&self.backend) }
            }
        }
        #[automatically_derived]
        impl #declared ::core::fmt::Debug for #named #filter {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#label).finish_non_exhaustive()
            }
        }
        #[automatically_derived]
        impl #declared #private::Client for #named #filter {
            fn info() -> &'static #private::ServiceInfo {
                #table
            }
            fn from_channel(channel: #private::Channel) -> Self {
                Self { backend: #private::Backend::Remote(channel) }
            }
            fn channel(&self) -> ::core::option::Option<&#private::Channel> {
                self.backend.channel()
            }
        }
    }
}

fn calls(service: &Service) -> TokenStream {
    let (declared, client, filter) =
        (generics::declared(service), generics::client(service), &service.item.generics.where_clause);
    let allow = allow_deprecated(service);
    let calls = service.methods.iter().map(|method| call(service, method));
    quote! {
        #allow
        #[allow(dead_code, clippy::all)]
        impl #declared #client #filter {
            #(#calls)*
        }
    }
}

/// An inherent method: the call owns what it needs.
fn call(service: &Service, method: &Method) -> TokenStream {
    let private = service.private();
    let (vis, twin) = (&service.item.vis, generics::twin_path(service));
    let Method { ident, value, .. } = method;
    let (doc, error) = (documentation(service, method), outcome::error_type(service, method));
    let parameters = method.arguments.iter().filter_map(|argument| call_parameter(&private, argument));
    let remote = on_channel(&private, method, Stream::Any);
    let owned = method.arguments.iter().filter_map(|argument| form::owned(&private, argument));
    let context = method.context().map(|argument| {
        let ident = &argument.ident;
        quote_spanned!(near(ident)=> let #ident = #private::Context::current();)
    });
    let twin_method = method.twin();
    let handed_on = method.arguments.iter().map(form::handed_on);
    quote_spanned! {near(ident)=>
        #doc
        #vis fn #ident(&self, #(#parameters),*) -> #private::Call<#value, #error> {
            match &self.backend {
                #private::Backend::Remote(channel) => #remote,
                #private::Backend::Local(service) => {
                    let service = ::core::clone::Clone::clone(service);
                    #(#owned)*
                    #private::Call::local(async move {
                        #context
                        #twin::#twin_method(&*service, #(#handed_on),*).await
                    })
                }
            }
        }
    }
}

/// What the user said about the method, or else where to read on.
fn documentation(service: &Service, method: &Method) -> TokenStream {
    let attrs = &method.attrs;
    let link = (!attrs.iter().any(|attr| attr.path().is_ident("doc"))).then(|| {
        let link = format!("Calls [`{0}::{1}`].", service.item.ident, method.ident);
        quote!(#[doc = #link])
    });
    quote!(#link #(#attrs)*)
}

/// A parameter of the inherent method; the context is not one.
fn call_parameter(private: &TokenStream, argument: &Argument) -> Option<TokenStream> {
    let (ident, ty) = (&argument.ident, &argument.ty);
    match &argument.role {
        Role::Wire(_) => Some(quote!(#ident: #ty)),
        Role::Stream(item) => Some(quote!(#ident: impl #private::Stream<Item = #item> + ::core::marker::Send + 'static)),
        Role::Context => None,
    }
}

/// The trait for the client. What is local borrows its arguments; what is remote is one of the calls above.
pub(super) fn as_trait(service: &Service) -> TokenStream {
    let (declared, bound, client) = (generics::declared(service), generics::bound(service), generics::client(service));
    let filter = &service.item.generics.where_clause;
    let allow = allow_deprecated(service);
    let methods = service.methods.iter().map(|method| trait_method(service, method));
    quote! {
        #allow
        #[automatically_derived]
        impl #declared #bound for #client #filter {
            #(#methods)*
        }
    }
}

fn trait_method(service: &Service, method: &Method) -> TokenStream {
    let private = service.private();
    let twin = generics::twin_path(service);
    let (Method { ident, output, .. }, twin_method) = (method, method.twin());
    let (parameters, names) = (parameters(method), names(method));
    let (channel, call) = remote_call(service, method);
    let in_context = method.context().map(|argument| {
        let ident = &argument.ident;
        quote!(.in_context(#ident))
    });
    let here = near(ident);
    let answer = outcome::from_result(&private, method, quote_spanned!(here=> call.await));
    let direct = quote_spanned!(here=> #private::Direct::new(#twin::#twin_method(&**service, #(#names),*)) #in_context .await);
    let direct = outcome::from_result(&private, method, direct);
    // The call is made in a statement of its own, so that nothing it borrows is held over the await.
    quote_spanned! {near(ident)=>
        async fn #ident(&self, #(#parameters),*) -> #output {
            match &self.backend {
                #private::Backend::Remote(#channel) => {
                    let call = #call #in_context;
                    #answer
                }
                #private::Backend::Local(service) => #direct
            }
        }
    }
}

/// How the trait's method calls what is remote: the pattern for the channel, and the call. A stream that can fail has a way of its
/// own; anything else is the inherent method.
fn remote_call(service: &Service, method: &Method) -> (TokenStream, TokenStream) {
    if method.stream().is_some() {
        let call = on_channel(&service.private(), method, Stream::Streaming);
        return (quote_spanned!(near(&method.ident)=> channel), call);
    }
    let ident = &method.ident;
    let passed = method.wire().map(|(argument, _)| &argument.ident);
    (quote!(_), quote_spanned!(near(ident)=> Self::#ident(self, #(#passed),*)))
}

/// Which of a channel's twin methods a stream argument goes to.
#[derive(Clone, Copy)]
enum Stream {
    /// Any stream of items, which cannot fail.
    Any,
    /// An `rpc::Streaming`, which can.
    Streaming,
}

/// The call on a channel.
fn on_channel(private: &TokenStream, method: &Method, stream: Stream) -> TokenStream {
    let (here, checked) = (outcome::place(method), outcome::checked_errors(private, method));
    let index = method.index;
    let arguments = method.wire().map(|(argument, form)| form::encoded(private, argument, form));
    let arguments = quote!(&(#(#arguments,)*));
    let answer = form::answer_type(private, method.answer_item().unwrap_or(&method.value));
    let (items, wire_item) = match method.stream() {
        Some((argument, item)) => (Some(&argument.ident), form::item_type(private, item)),
        None => (None, TokenStream::new()),
    };
    let call = match (method.kind(), stream) {
        (Kind::Unary, _) => quote_spanned!(here=> unary::<_, #answer, _, _>(#index, #arguments)),
        (Kind::OneWay, _) => quote_spanned!(here=> one_way(#index, #arguments)),
        (Kind::ServerStream, _) => quote_spanned!(here=> server_stream::<_, #answer, _, _, _>(#index, #arguments)),
        (Kind::ClientStream, Stream::Any) => {
            quote_spanned!(here=> client_stream::<_, #wire_item, _, _, #answer, _, _>(#index, #arguments, #items))
        }
        (Kind::ClientStream, Stream::Streaming) => {
            quote_spanned!(here=> client_stream_of::<_, #wire_item, _, #answer, _, _>(#index, #arguments, #items))
        }
        (Kind::BidiStream, Stream::Any) => {
            quote_spanned!(here=> bidi_stream::<_, #wire_item, _, _, #answer, _, _, _>(#index, #arguments, #items))
        }
        (Kind::BidiStream, Stream::Streaming) => {
            quote_spanned!(here=> bidi_stream_of::<_, #wire_item, _, #answer, _, _, _>(#index, #arguments, #items))
        }
    };
    let call = quote_spanned!(near(&method.output)=> channel.#call);
    if checked.is_empty() { call } else { quote!({ #checked #call }) }
}

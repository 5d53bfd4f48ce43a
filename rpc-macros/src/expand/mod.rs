//! Writes the siblings of a trait. Each room writes one of them; this one puts them together.
//!
//! Three rules hold in all rooms. Paths are absolute, so that no name of the user's shadows them. Local variables are quoted at the
//! `mixed_site`, so that they never meet the user's arguments, whatever their names. And what is written for a method is located
//! at the method, so that the compiler's errors point there and not at the attribute.

mod client;
mod fallback;
mod form;
mod generics;
mod info;
mod local;
mod outcome;
mod server;
mod trait_item;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Ident, ItemTrait, Type};

use crate::fault::Faults;
use crate::model::{Method, Service};
use crate::{attr, check, parse};

/// The whole attribute: from its tokens to what stands in their place.
pub(crate) fn service(attr: TokenStream, item: TokenStream) -> TokenStream {
    let mut faults = Faults::default();
    let keys = attr::service(attr, &mut faults);
    let item = match read_trait(item.clone()) {
        Ok(item) => item,
        Err(error) => {
            faults.add(error);
            return fallback::unread(&item, &faults);
        }
    };
    let mut parsed = parse::service(keys, item, &mut faults);
    check::check(&mut parsed.service, &mut faults);
    if faults.is_empty() { whole(&parsed.service) } else { fallback::parsed(&parsed, &faults) }
}

fn read_trait(item: TokenStream) -> syn::Result<ItemTrait> {
    let parsed = syn::parse2::<syn::Item>(item)?;
    match parsed {
        syn::Item::Trait(item) => Ok(item),
        other => Err(syn::Error::new_spanned(other, "`#[rpc::service]` stands on a trait")),
    }
}

fn whole(service: &Service) -> TokenStream {
    let item = trait_item::item(service);
    let shared = trait_item::shared(service);
    let client = client::as_trait(service);
    let siblings = siblings(service);
    quote!(#item #shared #siblings #client)
}

/// All that stands on its own for each method, and so can be had for the sound methods of a faulty trait.
fn siblings(service: &Service) -> TokenStream {
    let server = server::server(service);
    let client = client::client(service);
    let twin = local::twin(service);
    quote!(#server #client #twin)
}

/// The span of code whose names are ours and whose errors belong at the user's tokens.
fn near(tokens: &impl Spanned) -> Span {
    Span::mixed_site().located_at(tokens.span())
}

/// `name: Type` for each argument, as written.
fn parameters(method: &Method) -> impl Iterator<Item = TokenStream> {
    method.arguments.iter().map(|argument| {
        let (ident, ty): (&Ident, &Type) = (&argument.ident, &argument.ty);
        quote!(#ident: #ty)
    })
}

fn names(method: &Method) -> impl Iterator<Item = &Ident> {
    method.arguments.iter().map(|argument| &argument.ident)
}

/// Generated code names deprecated traits and methods too; only the user's own words should be warned of.
fn allow_deprecated(service: &Service) -> Option<TokenStream> {
    let deprecated = |attrs: &[Attribute]| attrs.iter().any(|attr| attr.path().is_ident("deprecated"));
    let mut methods = service.methods.iter();
    (deprecated(&service.item.attrs) || methods.any(|method| deprecated(&method.attrs))).then(|| quote!(#[allow(deprecated)]))
}

/// What the macro says about a sibling, and behind it what the user said about the trait.
fn sibling_docs(service: &Service, own: &str) -> TokenStream {
    let mut docs = service.docs().peekable();
    let gap = docs.peek().is_some().then(|| quote!(#[doc = ""]));
    quote!(#[doc = #own] #gap #(#docs)*)
}

#[cfg(test)]
mod tests;

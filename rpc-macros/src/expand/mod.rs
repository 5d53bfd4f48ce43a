//! Writes the siblings of a trait. Each room writes one of them; this one puts them together.
//!
//! Three rules hold in all rooms. Paths are absolute, so that no name of the user's shadows them. Local variables are quoted at the
//! `mixed_site`, so that they never meet the user's arguments, whatever their names. And what is written for a method is located
//! at the method, so that the compiler's errors point there and not at the attribute.

mod assertion;
mod client;
mod fallback;
mod form;
mod info;
mod local;
mod server;
mod trait_item;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Ident, ItemTrait, Type};

use crate::fault::Faults;
use crate::model::{ErrorType, Method, Service};
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
    let mut parsed = parse::service(keys.krate, item, &mut faults);
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
    let item = trait_item::item(&service.item);
    let shared = trait_item::shared(service);
    let client = client::as_trait(service);
    let siblings = siblings(service);
    quote!(#item #shared #siblings #client)
}

/// All that stands on its own for each method, and so can be had for the sound methods of a faulty trait.
fn siblings(service: &Service) -> TokenStream {
    let assertions = assertion::assertions(service);
    let server = server::server(service);
    let client = client::client(service);
    let twin = local::twin(service);
    // The assertions come first, for theirs are the errors to be read first.
    quote!(#assertions #server #client #twin)
}

/// The span of code whose names are ours and whose errors belong at the user's tokens.
fn near(tokens: &impl Spanned) -> Span {
    Span::mixed_site().located_at(tokens.span())
}

/// The `E` of a method's `rpc::Result<T, E>`.
fn error_type(service: &Service, method: &Method) -> TokenStream {
    let private = service.private();
    match &method.error {
        ErrorType::Never => quote!(#private::Never),
        ErrorType::Named(ty) => quote!(#ty),
        ErrorType::Alias => {
            let output = &method.output;
            quote!(<#output as #private::Outcome>::Error)
        }
    }
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

/// Generated code calls deprecated methods too; only the user's calls should be warned of.
fn allow_deprecated(service: &Service) -> Option<TokenStream> {
    let deprecated = |method: &Method| method.attrs.iter().any(|attr| attr.path().is_ident("deprecated"));
    service.methods.iter().any(deprecated).then(|| quote!(#[allow(deprecated)]))
}

#[cfg(test)]
mod tests;

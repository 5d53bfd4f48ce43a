//! The keys of `#[rpc::service(..)]` and `#[rpc(..)]`. An unknown key is a fault, never ignored.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{Attribute, Expr, LitStr, Path, Token, token};

use crate::fault::Faults;
use crate::shape;

const METHOD_KEYS: &str = "`oneway`, `name`, `idempotent` and `spawn`";

/// The keys of the trait's attribute.
pub(crate) struct ServiceKeys {
    /// Where the facade is found.
    pub(crate) krate: Path,
    /// Whether the service stays on one thread.
    pub(crate) local: bool,
}

/// The keys of a method.
#[derive(Default)]
pub(crate) struct MethodKeys {
    pub(crate) oneway: bool,
    /// The name on the wire, if it is pinned.
    pub(crate) name: Option<LitStr>,
    pub(crate) idempotent: bool,
    /// Whether each call has a task from its start.
    pub(crate) spawn: Option<Path>,
}

/// Reads `#[rpc::service(..)]`.
pub(crate) fn service(tokens: TokenStream, faults: &mut Faults) -> ServiceKeys {
    let (mut krate, mut local) = (None, false);
    let parser = syn::meta::parser(|meta| {
        if meta.path.is_ident("crate") {
            let path = text_of(&meta, "crate = \"path\"")?.parse_with(Path::parse_mod_style)?;
            once(krate.replace(path).is_some(), &meta, faults);
            return Ok(());
        }
        if meta.path.is_ident("local") {
            return flag(&mut local, &meta, faults);
        }
        faults.at(&meta.path, format!("unknown key `{}`: a service knows `crate` and `local`", text(&meta.path)));
        skip(&meta)
    });
    if let Err(error) = parser.parse2(tokens) {
        faults.add(error);
    }
    // The span of the call lets an error about a missing `rpc` point at the attribute.
    let krate = krate.unwrap_or_else(|| syn::parse_quote_spanned!(Span::call_site()=> ::rpc));
    ServiceKeys { krate, local }
}

/// Reads all `#[rpc(..)]` of a method.
pub(crate) fn method(attrs: &[Attribute], faults: &mut Faults) -> MethodKeys {
    let mut keys = MethodKeys::default();
    for attr in attrs.iter().filter(|attr| is_ours(attr)) {
        if let Err(error) = attr.parse_nested_meta(|meta| keys.read(&meta, faults)) {
            faults.add(error);
        }
    }
    keys
}

/// Whether an attribute is read here, and so must not be left on the emitted trait.
pub(crate) fn is_ours(attr: &Attribute) -> bool {
    attr.path().is_ident("rpc")
}

/// Whether an attribute may be one of ours once it is expanded, which is too late.
pub(crate) fn is_ours_perhaps(attr: &Attribute) -> bool {
    attr.path().is_ident("cfg_attr") && shape::mentions(&attr.meta, "rpc")
}

impl MethodKeys {
    fn read(&mut self, meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<()> {
        if meta.path.is_ident("oneway") {
            return flag(&mut self.oneway, meta, faults);
        } else if meta.path.is_ident("idempotent") {
            return flag(&mut self.idempotent, meta, faults);
        } else if meta.path.is_ident("spawn") {
            let mut given = self.spawn.replace(meta.path.clone()).is_some();
            return flag(&mut given, meta, faults);
        } else if meta.path.is_ident("name") {
            let name = text_of(meta, "name = \"..\"")?;
            if name.value().is_empty() || name.value().contains('/') {
                faults.at(&name, "a method's name on the wire is not empty and has no `/`");
            }
            once(self.name.replace(name).is_some(), meta, faults);
        } else {
            let path = &meta.path;
            faults.at(path, format!("unknown key `{}`: a method knows {METHOD_KEYS}", text(path)));
            return skip(meta);
        }
        Ok(())
    }
}

/// A key that stands for itself.
fn flag(given: &mut bool, meta: &ParseNestedMeta<'_>, faults: &mut Faults) -> syn::Result<()> {
    once(std::mem::replace(given, true), meta, faults);
    if meta.input.peek(Token![=]) || meta.input.peek(token::Paren) {
        faults.at(&meta.path, format!("the key `{}` stands alone: it has no value", text(&meta.path)));
    }
    skip(meta)
}

/// The text of a key that has one.
fn text_of(meta: &ParseNestedMeta<'_>, example: &str) -> syn::Result<LitStr> {
    let value = meta.value().and_then(|value| value.parse::<LitStr>());
    value.map_err(|error| syn::Error::new(error.span(), format!("the key `{}` has a text: `{example}`", text(&meta.path))))
}

fn once(seen: bool, meta: &ParseNestedMeta<'_>, faults: &mut Faults) {
    if seen {
        faults.at(&meta.path, format!("the key `{}` is given twice", text(&meta.path)));
    }
}

/// Steps over the value of a key that should have none, so that the keys after it are read too.
fn skip(meta: &ParseNestedMeta<'_>) -> syn::Result<()> {
    if meta.input.peek(Token![=]) {
        meta.value()?.parse::<Expr>()?;
    } else if meta.input.peek(token::Paren) {
        let inside;
        syn::parenthesized!(inside in meta.input);
        inside.parse::<TokenStream>()?;
    }
    Ok(())
}

fn text(path: &Path) -> String {
    quote!(#path).to_string().replace(' ', "")
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    fn method_faults(attr: Attribute) -> Vec<String> {
        let mut faults = Faults::default();
        method(&[attr], &mut faults);
        faults.messages()
    }

    #[test]
    fn unknown_keys_are_all_named_and_their_values_stepped_over() {
        let faults = method_faults(parse_quote!(#[rpc(one_way, retry = 3, limits(depth = 2), oneway, once)]));
        assert_eq!(faults.len(), 4);
        assert_eq!(faults[0], "unknown key `one_way`: a method knows `oneway`, `name`, `idempotent` and `spawn`");
        assert!(faults[3].starts_with("unknown key `once`"));
    }

    #[test]
    fn a_key_given_twice_is_a_fault() {
        assert_eq!(method_faults(parse_quote!(#[rpc(oneway, oneway)])), ["the key `oneway` is given twice"]);
        assert_eq!(method_faults(parse_quote!(#[rpc(name = "a", name = "b")])), ["the key `name` is given twice"]);
    }

    #[test]
    fn a_pinned_name_is_a_word() {
        let fault = "a method's name on the wire is not empty and has no `/`";
        assert_eq!(method_faults(parse_quote!(#[rpc(name = "")])), [fault]);
        assert_eq!(method_faults(parse_quote!(#[rpc(name = "a/b")])), [fault]);
        for attr in [parse_quote!(#[rpc(name = 7)]), parse_quote!(#[rpc(name)])] {
            assert_eq!(method_faults(attr), ["the key `name` has a text: `name = \"..\"`"]);
        }
    }

    #[test]
    fn a_key_that_stands_alone_has_no_value() {
        for attr in [parse_quote!(#[rpc(spawn = true, oneway)]), parse_quote!(#[rpc(spawn(always), oneway)])] {
            assert_eq!(method_faults(attr), ["the key `spawn` stands alone: it has no value"]);
        }
    }

    #[test]
    fn the_facade_is_found_at_the_given_path() {
        let mut faults = Faults::default();
        let keys = service(quote!(crate = "crate::net::rpc"), &mut faults);
        assert!(faults.is_empty());
        assert_eq!(text(&keys.krate), "crate::net::rpc");
        assert_eq!(text(&service(TokenStream::new(), &mut faults).krate), "::rpc");
    }

    #[test]
    fn an_unknown_key_of_the_service_is_a_fault() {
        let mut faults = Faults::default();
        let keys = service(quote!(name = "Kv", local, local, send), &mut faults);
        assert!(keys.local);
        assert_eq!(
            faults.messages(),
            [
                "unknown key `name`: a service knows `crate` and `local`",
                "the key `local` is given twice",
                "unknown key `send`: a service knows `crate` and `local`"
            ]
        );
    }
}

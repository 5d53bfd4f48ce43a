//! What comes back: the type by its own name, and checks that say of an unsound one what is wrong with it.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use crate::model::{ErrorType, Method, Service};

/// The `E` of a method's `rpc::Result<T, E>`.
pub(super) fn error_type(service: &Service, method: &Method) -> TokenStream {
    let private = service.private();
    match &method.error {
        ErrorType::Never => quote!(#private::Never),
        ErrorType::Named(ty) => quote!(#ty),
        ErrorType::Alias => {
            let asked = asked(&private, method);
            quote_spanned!(method.output.span()=> #asked::Error)
        }
    }
}

/// The return type for those who have to know that it is a `Result`.
pub(super) fn result_type(service: &Service, method: &Method) -> TokenStream {
    if method.certain {
        let output = &method.output;
        return quote!(#output);
    }
    let (private, value, error) = (service.private(), &method.value, error_type(service, method));
    quote!(#private::Result<#value, #error>)
}

/// What a method returned, as a `Result`.
pub(super) fn into_result(private: &TokenStream, method: &Method, value: TokenStream) -> TokenStream {
    convert(private, method, "into_result", value)
}

/// A `Result`, as what the method returns.
pub(super) fn from_result(private: &TokenStream, method: &Method, value: TokenStream) -> TokenStream {
    convert(private, method, "from_result", value)
}

fn convert(private: &TokenStream, method: &Method, function: &str, value: TokenStream) -> TokenStream {
    if method.certain {
        return value;
    }
    let here = method.output.span();
    let (asked, function) = (asked(private, method), syn::Ident::new(function, here));
    // Bound to a name that is at that place too, for the compiler may blame the argument.
    quote_spanned!(here=> { let answer = #value; #asked::#function(answer) })
}

/// All of it at one place, so that what is wrong with it is said once.
fn asked(private: &TokenStream, method: &Method) -> TokenStream {
    let here = method.output.span();
    let output = at(method.output.to_token_stream(), here);
    quote_spanned!(here=> <#output as #private::Outcome>)
}

fn at(tokens: TokenStream, span: Span) -> TokenStream {
    let moved = tokens.into_iter().map(|mut token| {
        if let TokenTree::Group(group) = &token {
            token = TokenTree::Group(Group::new(group.delimiter(), at(group.stream(), span)));
        }
        token.set_span(span);
        token
    });
    moved.collect()
}

/// A statement for each error that is named. What would be said of it again is at the same place, and so is not.
pub(super) fn checked_errors(private: &TokenStream, method: &Method) -> TokenStream {
    let named = named_errors(method).map(|ty| quote_spanned!(ty.span()=> #private::travel::error::<#ty>();));
    quote!(#(#named)*)
}

/// Where the names of functions stand that ask for errors which travel.
pub(super) fn place(method: &Method) -> Span {
    named_errors(method).next().map_or_else(|| method.output.span(), Spanned::span)
}

fn named_errors(method: &Method) -> impl Iterator<Item = &Type> {
    let own = match &method.error {
        ErrorType::Named(ty) => Some(&**ty),
        ErrorType::Never | ErrorType::Alias => None,
    };
    method.stream_error().into_iter().chain(own)
}

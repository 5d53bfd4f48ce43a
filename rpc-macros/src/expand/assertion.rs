//! Assertions about the types that travel, each at its type, so that one that cannot travel is reported where it was written.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::Type;
use syn::spanned::Spanned;

use crate::model::{Argument, ErrorType, Form, Method, Role, Service};

/// A function that is checked and never called.
pub(super) fn assertions(service: &Service) -> TokenStream {
    let private = service.private();
    let checks = service.methods.iter().map(of_method);
    quote! {
        const _: fn() = || {
            fn argument<__T: #private::Argument>() {}
            fn answer<__T: #private::Answer>() {}
            fn error<__T: #private::AppError>() {}
            fn outcome<__T: #private::Outcome>() {}
            #(#checks)*
        };
    }
}

fn of_method(method: &Method) -> TokenStream {
    let arguments = method.arguments.iter().filter_map(travels).map(|ty| check(ty, "argument"));
    let answer = match method.answer_item() {
        Some(item) => check(item, "answer"),
        None => check(&method.value, "answer"),
    };
    let error = match &method.error {
        ErrorType::Named(ty) => check(ty, "error"),
        ErrorType::Never | ErrorType::Alias => TokenStream::new(),
    };
    let outcome = check(&method.output, "outcome");
    quote!(#(#arguments)* #answer #error #outcome)
}

/// The type to be checked; what is known to travel needs no check.
fn travels(argument: &Argument) -> Option<&Type> {
    match &argument.role {
        Role::Wire(Form::Slice(ty) | Form::Borrowed(ty)) | Role::Stream(ty) => Some(ty),
        Role::Wire(Form::Owned) => Some(&argument.ty),
        Role::Wire(_) | Role::Context => None,
    }
}

fn check(ty: &Type, name: &str) -> TokenStream {
    let name = syn::Ident::new(name, proc_macro2::Span::call_site());
    quote_spanned!(ty.span()=> #name::<#ty>();)
}

//! What a type is, judged by its text: all a macro has. Imports nothing of ours.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{AngleBracketedGenericArguments, GenericArgument, Path, PathArguments, Type, TypePath};

/// The type without the parentheses and invisible groups around it.
pub(crate) fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Paren(inner) => bare(&inner.elem),
        Type::Group(inner) => bare(&inner.elem),
        _ => ty,
    }
}

/// The path of a type that is a path.
pub(crate) fn path(ty: &Type) -> Option<&Path> {
    match bare(ty) {
        Type::Path(TypePath { qself: None, path, .. }) => Some(path),
        _ => None,
    }
}

/// Whether the type is a path that ends in this name, however it is qualified.
pub(crate) fn ends_in(ty: &Type, name: &str) -> bool {
    path(ty).and_then(|path| path.segments.last()).is_some_and(|last| last.ident == name)
}

/// The type arguments of the path's last segment.
pub(crate) fn type_arguments(path: &Path) -> Vec<&Type> {
    let Some(PathArguments::AngleBracketed(AngleBracketedGenericArguments { args, .. })) =
        path.segments.last().map(|last| &last.arguments)
    else {
        return Vec::new();
    };
    let types = args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    });
    types.collect()
}

/// Whether this name stands anywhere in the tokens.
pub(crate) fn mentions(tokens: &impl ToTokens, name: &str) -> bool {
    fn within(tokens: TokenStream, name: &str) -> bool {
        tokens.into_iter().any(|token| match token {
            TokenTree::Ident(ident) => ident == name,
            TokenTree::Group(group) => within(group.stream(), name),
            _ => false,
        })
    }
    within(tokens.to_token_stream(), name)
}

pub(crate) fn is_str(ty: &Type) -> bool {
    path(ty).is_some_and(|path| path.is_ident("str"))
}

pub(crate) fn is_u8(ty: &Type) -> bool {
    path(ty).is_some_and(|path| path.is_ident("u8"))
}

/// What certainly travels, unless somebody has given its name to something else.
pub(crate) fn is_known(ty: &Type) -> bool {
    const NAMES: [&str; 17] = [
        "String", "bool", "char", "f32", "f64", "u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128",
        "isize",
    ];
    match bare(ty) {
        Type::Tuple(tuple) => tuple.elems.iter().all(is_known),
        ty => path(ty).and_then(Path::get_ident).is_some_and(|name| NAMES.iter().any(|known| name == known)),
    }
}

/// What is called `Bytes`, and is `bytes::Bytes` but for where somebody has given that name to something else.
pub(crate) fn is_called_bytes(ty: &Type) -> bool {
    ends_in(ty, "Bytes") && path(ty).is_some_and(|path| type_arguments(path).is_empty())
}

/// `Vec<u8>`, which travels as bytes.
pub(crate) fn is_byte_vec(ty: &Type) -> bool {
    only_argument(ty, "Vec").is_some_and(is_u8)
}

/// `Option<Vec<u8>>`, which travels as optional bytes.
pub(crate) fn is_opt_byte_vec(ty: &Type) -> bool {
    only_argument(ty, "Option").is_some_and(is_byte_vec)
}

/// The `T` of `name<T>`.
fn only_argument<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    if !ends_in(ty, name) {
        return None;
    }
    match type_arguments(path(ty)?)[..] {
        [only] => Some(only),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use syn::parse_quote;

    use super::*;

    #[test]
    fn bytes_are_known_under_any_path() {
        assert!(is_byte_vec(&parse_quote!(Vec<u8>)));
        assert!(is_byte_vec(&parse_quote!((::std::vec::Vec<u8>))));
        assert!(is_opt_byte_vec(&parse_quote!(core::option::Option<std::vec::Vec<u8>>)));
    }

    #[test]
    fn a_name_is_found_at_any_depth_and_whole() {
        let ty: Type = parse_quote!(Map<(u8, [Self; 4]), Selfish>);
        assert!(mentions(&ty, "Self"));
        assert!(!mentions(&ty, "Ma"));
    }

    #[test]
    fn other_vectors_are_not_bytes() {
        assert!(!is_byte_vec(&parse_quote!(Vec<u16>)));
        assert!(!is_byte_vec(&parse_quote!(Vec<u8, Arena>)));
        assert!(!is_byte_vec(&parse_quote!([u8; 4])));
        assert!(!is_opt_byte_vec(&parse_quote!(Option<u8>)));
    }
}

//! A service as the expansion sees it: only sound methods get in here.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Attribute, Ident, ItemTrait, Path, Type};

use crate::shape;

pub(crate) struct Service {
    /// Where the facade is found.
    pub(crate) krate: Path,
    /// Whether it stays on one thread, and so neither the service nor its futures are `Send`.
    pub(crate) local: bool,
    /// The trait as it was written.
    pub(crate) item: ItemTrait,
    /// In the order of the trait.
    pub(crate) methods: Vec<Method>,
}

pub(crate) struct Method {
    pub(crate) ident: Ident,
    /// The name on the wire.
    pub(crate) name: String,
    pub(crate) hash: u64,
    /// The rank among the sorted hashes: what travels.
    pub(crate) index: u32,
    /// What the client's method carries over: documentation and deprecation.
    pub(crate) attrs: Vec<Attribute>,
    /// In the order of the trait, without `&self`.
    pub(crate) arguments: Vec<Argument>,
    pub(crate) oneway: bool,
    pub(crate) idempotent: bool,
    pub(crate) spawn: bool,
    /// The whole return type, as it was written.
    pub(crate) output: Type,
    /// Whether that is the facade's own by its name; else the compiler is asked.
    pub(crate) certain: bool,
    /// The `T` of `rpc::Result<T, E>`.
    pub(crate) value: Type,
    pub(crate) error: ErrorType,
}

pub(crate) struct Argument {
    pub(crate) ident: Ident,
    /// As it was written.
    pub(crate) ty: Type,
    pub(crate) role: Role,
}

pub(crate) enum Role {
    /// Encoded, in the order of the trait.
    Wire(Form),
    /// A stream of these items.
    Stream(Type),
    /// `&rpc::Context`: stays off the wire.
    Context,
}

/// How an argument travels, and how the service gets it.
pub(crate) enum Form {
    /// `&str`
    Str,
    /// `&[u8]`
    Bytes,
    /// `&[T]`
    Slice(Type),
    /// `&Vec<u8>`
    BorrowedByteVec(Type),
    /// `&T`
    Borrowed(Type),
    /// `Vec<u8>`
    ByteVec,
    /// `Option<Vec<u8>>`
    OptByteVec,
    /// `T`
    Owned,
}

/// The `E` of `rpc::Result<T, E>`.
pub(crate) enum ErrorType {
    /// Left out of `rpc::Result<T>`.
    Never,
    Named(Box<Type>),
    /// Hidden behind an alias `Result<T>`; the compiler finds it.
    Alias,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Unary,
    ServerStream,
    ClientStream,
    BidiStream,
    OneWay,
}

impl Service {
    /// The one module that generated code names.
    pub(crate) fn private(&self) -> TokenStream {
        let krate = &self.krate;
        quote!(#krate::__private)
    }

    pub(crate) fn client(&self) -> Ident {
        format_ident!("{}Client", self.item.ident)
    }

    pub(crate) fn server(&self) -> Ident {
        format_ident!("{}Server", self.item.ident)
    }

    pub(crate) fn twin(&self) -> Ident {
        format_ident!("__{}Dyn", self.item.ident)
    }

    /// What the user said about the trait.
    pub(crate) fn docs(&self) -> impl Iterator<Item = &Attribute> {
        self.item.attrs.iter().filter(|attr| attr.path().is_ident("doc"))
    }

    /// Methods by rank.
    pub(crate) fn ranked(&self) -> Vec<&Method> {
        let mut methods = self.methods.iter().collect::<Vec<_>>();
        methods.sort_by_key(|method| method.hash);
        methods
    }
}

impl Method {
    pub(crate) fn kind(&self) -> Kind {
        match (self.oneway, self.stream().is_some(), self.answer_item().is_some()) {
            (true, ..) => Kind::OneWay,
            (false, false, false) => Kind::Unary,
            (false, false, true) => Kind::ServerStream,
            (false, true, false) => Kind::ClientStream,
            (false, true, true) => Kind::BidiStream,
        }
    }

    /// The arguments that are encoded.
    pub(crate) fn wire(&self) -> impl Iterator<Item = (&Argument, &Form)> {
        self.arguments.iter().filter_map(|argument| match &argument.role {
            Role::Wire(form) => Some((argument, form)),
            _ => None,
        })
    }

    /// The stream argument and the type of its items.
    pub(crate) fn stream(&self) -> Option<(&Argument, &Type)> {
        self.arguments.iter().find_map(|argument| match &argument.role {
            Role::Stream(item) => Some((argument, item)),
            _ => None,
        })
    }

    pub(crate) fn context(&self) -> Option<&Argument> {
        self.arguments.iter().find(|argument| matches!(argument.role, Role::Context))
    }

    /// The `E2` of `rpc::Streaming<T, E2>`, where the answer is one.
    pub(crate) fn stream_error(&self) -> Option<&Type> {
        self.answer_item().and_then(|_| shape::path(&self.value)).and_then(|path| shape::type_arguments(path).get(1).copied())
    }

    /// The items of the answer, if the answer is a stream.
    pub(crate) fn answer_item(&self) -> Option<&Type> {
        if !shape::ends_in(&self.value, "Streaming") {
            return None;
        }
        shape::path(&self.value).and_then(|path| shape::type_arguments(path).first().copied())
    }

    /// The method of the twin. The prefix keeps a call of `kv.get()` unambiguous beside the trait (E0034).
    pub(crate) fn twin(&self) -> Ident {
        format_ident!("__{}", self.ident)
    }
}

//! Each shape that is refused, and the words that refuse it.

use proc_macro2::TokenStream;
use quote::quote;
use syn::parse_quote;

use super::*;
use crate::attr;

/// The keys of `#[rpc::service(..)]`.
fn keys(tokens: TokenStream) -> ServiceKeys {
    attr::service(tokens, &mut Faults::default())
}

/// What is wrong with a trait.
fn faults(item: TokenStream) -> Vec<String> {
    faults_of(quote!(), item)
}

/// What is wrong with a trait that has keys.
fn faults_of(attr: TokenStream, item: TokenStream) -> Vec<String> {
    let mut faults = Faults::default();
    service(keys(attr), syn::parse2(item).expect("the case is a trait"), &mut faults);
    faults.messages()
}

/// What is wrong with a method.
fn method_faults(method: TokenStream) -> Vec<String> {
    faults(quote!(trait Kv { #method }))
}

/// What is wrong with the arguments after `&self`.
fn argument_faults(arguments: TokenStream) -> Vec<String> {
    method_faults(quote!(async fn put(&self, #arguments) -> rpc::Result<()>;))
}

/// What is wrong with a return type.
fn answer_faults(answer: TokenStream) -> Vec<String> {
    method_faults(quote!(async fn get(&self) -> #answer;))
}

#[test]
fn a_plain_service_has_no_fault() {
    let found = faults(quote! {
        pub trait Kv: Send + Sync + core::fmt::Debug + Clone + 'static {
            async fn get(&self, key: &str, rows: &[Row], row: &Row, n: (u8, [u8; 4])) -> rpc::Result<Option<Bytes>, KvError>;
            async fn aliased(&self, cx: &rpc::Context) -> Result<()>;
            async fn chat(&self, room: String, said: rpc::Streaming<Line>, cx: &Context) -> rpc::Result<rpc::Streaming<Line, E>, E>;
            #[rpc(oneway, name = "say")]
            #[rpc(idempotent, spawn)]
            async fn log(&self, line: &str) -> rpc::Result<()>;
        }
    });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_service_may_leave_types_and_constants_open() {
    let found = faults(quote! {
        trait Kv<K: Serialize, V = String, const N: usize = 4>
        where
            V: for<'de> Deserialize<'de> + Clone,
            Vec<K>: Clone,
        {
            async fn get(&self, key: K) -> rpc::Result<Page<V, N>>;
        }
    });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_service_has_no_lifetimes() {
    assert_eq!(
        faults(quote!(
            trait Kv<'a> {}
        )),
        ["a service has no lifetimes: what its methods borrow lives as long as the call"]
    );
}

#[test]
fn a_service_asks_nothing_of_self() {
    assert_eq!(
        faults(quote!(
            trait Kv
            where
                Self: Sized,
            {
            }
        )),
        ["a service asks nothing of `Self` here: its client would have to be that too"]
    );
    let fault = "a type parameter has nothing to do with `Self`: that is another type on the other side";
    assert_eq!(
        faults(quote!(
            trait Kv<T: From<Self>> {}
        )),
        [fault]
    );
    assert_eq!(
        faults(quote!(
            trait Kv<T: Copy = Self> {}
        )),
        [fault]
    );
}

#[test]
fn a_type_parameter_has_a_size() {
    let fault = "a type parameter of a service has a size: its values travel";
    assert_eq!(
        faults(quote!(
            trait Kv<T: ?Sized> {}
        )),
        [fault]
    );
    assert_eq!(
        faults(quote!(
            trait Kv<T>
            where
                T: ?Sized,
            {
            }
        )),
        [fault]
    );
}

#[test]
fn a_type_parameter_says_what_it_can_do() {
    let found = faults(quote!(
        trait Kv<K, V: Serialize, W>
        where
            W: Serialize,
        {
        }
    ));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("`K` has to travel, and the trait has to say so: `Serialize +"), "{found:?}");
}

#[test]
fn a_local_service_has_one_thread() {
    assert_eq!(
        faults_of(
            quote!(local),
            quote!(
                trait Kv: Send {}
            )
        ),
        ["a `local` service stays on its thread: leave this out"]
    );
    assert_eq!(
        faults_of(
            quote!(local),
            quote!(
                trait Kv: Clone + 'static {
                    #[rpc(spawn)]
                    async fn get(&self) -> rpc::Result<()>;
                }
            )
        ),
        ["each call of a `local` service is a task already, and all of them share its thread: leave out `spawn`"]
    );
}

#[test]
fn a_service_is_a_plain_trait() {
    assert_eq!(
        faults(quote!(
            unsafe trait Kv {}
        )),
        ["a service is a plain trait, without `unsafe`"]
    );
    assert_eq!(faults(quote!(auto trait Kv {})), ["a service is a plain trait, without `auto`"]);
}

#[test]
fn a_service_asks_nothing_that_its_client_is_not() {
    let fault = "a service cannot ask for this of its implementors: its client would have to be one of them";
    assert_eq!(
        faults(quote!(
            trait Kv: Display {}
        )),
        [fault]
    );
    assert_eq!(
        faults(quote!(
            trait Kv: Send + std::error::Error {}
        )),
        [fault]
    );
}

#[test]
fn a_method_is_not_conditional() {
    let fault = "a method is not conditional: both sides must have the same methods; put `#[cfg]` on the trait";
    assert_eq!(
        method_faults(quote!(
            #[cfg(test)]
            async fn get(&self) -> rpc::Result<()>;
        )),
        [fault]
    );
    let fault = "a method's keys are not conditional: they are read before `cfg_attr` is";
    assert_eq!(
        method_faults(quote!(
            #[cfg_attr(test, rpc(oneway))]
            async fn log(&self) -> rpc::Result<()>;
        )),
        [fault]
    );
}

#[test]
fn a_service_has_methods_only() {
    let fault = "a service has methods only: a constant cannot be called";
    assert_eq!(
        method_faults(quote!(
            const LIMIT: u32;
        )),
        [fault]
    );
    let fault = "a service has methods only: the client cannot know a type that the implementor chooses";
    assert_eq!(
        method_faults(quote!(
            type Key;
        )),
        [fault]
    );
    let fault = "a service has methods only: it is read before macros in it are expanded";
    assert_eq!(method_faults(quote!(methods!();)), [fault]);
}

#[test]
fn a_method_is_declared_once() {
    let found = method_faults(quote! {
        async fn get(&self) -> rpc::Result<()>;
        async fn get(&self, key: &str) -> rpc::Result<()>;
    });
    assert_eq!(found, ["the method `get` is declared twice"]);
}

#[test]
fn a_method_is_async_and_has_no_other_qualifier() {
    assert_eq!(
        method_faults(quote!(
            fn get(&self) -> rpc::Result<()>;
        )),
        ["a method of a service is async: `async fn get`"]
    );
    let fault = "a method of a service is not `unsafe`: the other side could not keep its promise";
    assert_eq!(
        method_faults(quote!(
            async unsafe fn get(&self) -> rpc::Result<()>;
        )),
        [fault]
    );
    assert_eq!(
        method_faults(quote!(
            async extern "C" fn get(&self) -> rpc::Result<()>;
        )),
        ["a method of a service has no ABI of its own"]
    );
    assert_eq!(
        method_faults(quote!(
            const fn get(&self) -> rpc::Result<()>;
        )),
        ["a method of a service is async: `async fn get`", "a method of a service is not `const`"]
    );
}

#[test]
fn a_method_has_no_generics() {
    let fault = "a method of a service has no generics: the other side has to know its types";
    assert_eq!(
        method_faults(quote!(
            async fn get<K>(&self, key: K) -> rpc::Result<()>;
        )),
        [fault]
    );
    assert_eq!(
        method_faults(quote!(
            async fn get<const N: usize>(&self) -> rpc::Result<()>;
        )),
        [fault]
    );
    assert_eq!(
        method_faults(quote!(
            async fn get(&self) -> rpc::Result<()>
            where
                Self: Sized;
        )),
        ["a method of a service has no `where` clause"]
    );
    assert_eq!(
        method_faults(quote!(
            async fn get<'a>(&self) -> rpc::Result<()>;
        )),
        ["a method of a service has no lifetimes: what it borrows lives as long as the call"]
    );
}

#[test]
fn a_method_has_no_body() {
    let found = method_faults(quote!(
        async fn get(&self) -> rpc::Result<()> {
            Ok(())
        }
    ));
    assert_eq!(found, ["a method of a service has no body: each implementor answers it"]);
}

#[test]
fn a_method_takes_a_shared_self() {
    let missing = "a method of a service takes `&self`: `async fn get(&self, ..)`";
    assert_eq!(
        method_faults(quote!(
            async fn get() -> rpc::Result<()>;
        )),
        [missing]
    );
    assert_eq!(
        method_faults(quote!(
            async fn get(key: u32) -> rpc::Result<()>;
        )),
        [missing]
    );
    let other = "a method of a service takes `&self`: its calls run side by side";
    for receiver in [quote!(self), quote!(&mut self), quote!(mut self), quote!(self: &Self), quote!(&'static self)] {
        assert_eq!(method_faults(quote!(async fn get(#receiver) -> rpc::Result<()>;)), [other], "{receiver}");
    }
}

#[test]
fn an_argument_is_a_plain_name() {
    let fault = "an argument of a service's method is a plain name";
    for pattern in [quote!((a, b)), quote!(_), quote!(mut a), quote!(ref a)] {
        assert_eq!(argument_faults(quote!(#pattern: (u8, u8))), [fault], "{pattern}");
    }
}

#[test]
fn an_argument_is_not_borrowed_mutably() {
    let fault = "an argument is not `&mut`: the other side works on its own copy; return what has changed";
    assert_eq!(argument_faults(quote!(row: &mut Row)), [fault]);
}

#[test]
fn an_argument_has_no_explicit_lifetime() {
    for ty in [quote!(&'static str), quote!(&'_ str), quote!(Cow<'_, str>), quote!(&Cow<'_, str>)] {
        assert_eq!(argument_faults(quote!(key: #ty)), [nested::LIFETIME], "{ty}");
    }
}

#[test]
fn an_argument_has_no_reference_inside() {
    let fault = "a reference inside another type cannot travel: use an owned type there";
    for ty in [quote!(Option<&str>), quote!(&&str), quote!((u8, &[u8])), quote!(rpc::Streaming<&str>)] {
        assert_eq!(argument_faults(quote!(key: #ty)), [fault], "{ty}");
    }
}

#[test]
fn an_argument_has_one_type_for_both_sides() {
    let fault = "`impl Trait` cannot travel: the other side has to know the type";
    assert_eq!(argument_faults(quote!(key: impl ToString)), [fault]);
    assert_eq!(argument_faults(quote!(key: &impl ToString)), [fault]);
    let fault = "`Self` cannot travel: it is another type on the other side";
    assert_eq!(argument_faults(quote!(other: Vec<Self>)), [fault]);
}

#[test]
fn a_stream_argument_is_one_and_last() {
    assert_eq!(
        argument_faults(quote!(a: rpc::Streaming<A>, b: rpc::Streaming<B>)),
        ["a method takes one stream, and `a` is one already"]
    );
    assert_eq!(
        argument_faults(quote!(rows: rpc::Streaming<Row>, table: &str)),
        ["the stream `rows` comes after the other arguments"]
    );
}

#[test]
fn a_stream_stands_alone_and_by_value() {
    assert_eq!(argument_faults(quote!(rows: &rpc::Streaming<Row>)), ["a stream is taken by value: `rpc::Streaming<..>`"]);
    let nested = "a stream stands alone: as an argument, or as the value of the answer";
    assert_eq!(argument_faults(quote!(rows: Vec<rpc::Streaming<Row>>)), [nested]);
    assert_eq!(answer_faults(quote!(rpc::Result<Option<rpc::Streaming<Row>>>)), [nested]);
}

#[test]
fn a_stream_names_its_items() {
    let fault = "the stream needs the type of its items: `rpc::Streaming<T>`";
    assert_eq!(argument_faults(quote!(rows: rpc::Streaming)), [fault]);
    assert_eq!(answer_faults(quote!(rpc::Result<rpc::Streaming>)), [fault]);
}

#[test]
fn a_stream_argument_has_no_error() {
    let fault = "a stream argument has no error of its own: `rpc::Streaming<T>`";
    assert_eq!(argument_faults(quote!(rows: rpc::Streaming<Row, KvError>)), [fault]);
}

#[test]
fn the_context_comes_once() {
    assert_eq!(argument_faults(quote!(cx: &rpc::Context, again: &Context)), ["a method takes the context once"]);
}

#[test]
fn more_arguments_than_a_tuple_has_are_a_fault_at_the_first_over() {
    let names = (0..17).map(|n| quote::format_ident!("a{n}"));
    assert_eq!(argument_faults(quote!(#(#names: u8),*)), ["`put` has more than 16 arguments: put them into a struct"]);
    let names = (0..16).map(|n| quote::format_ident!("a{n}"));
    assert!(argument_faults(quote!(cx: &Context, #(#names: u8,)* rows: Streaming<u8>)).is_empty());
}

#[test]
fn an_answer_is_the_facades_result() {
    let fault = "a method of a service returns `rpc::Result<..>`: any call can fail on its way";
    assert_eq!(
        method_faults(quote!(
            async fn get(&self);
        )),
        [fault]
    );
    for answer in [quote!(u32), quote!(Option<u32>), quote!(std::result::Result<u32, E>), quote!(core::fmt::Result), quote!(())] {
        assert_eq!(answer_faults(answer.clone()), [fault], "{answer}");
    }
    let fault = "the type of the value is missing: `rpc::Result<T>` or `rpc::Result<T, E>`";
    assert_eq!(answer_faults(quote!(rpc::Result)), [fault]);
}

#[test]
fn an_answer_borrows_nothing() {
    assert_eq!(answer_faults(quote!(rpc::Result<&str>)), ["an answer cannot borrow: return an owned type"]);
    assert_eq!(answer_faults(quote!(rpc::Result<Cow<'_, str>>)), ["an answer cannot borrow: it has no lifetime"]);
    assert_eq!(answer_faults(quote!(rpc::Result<(), Refusal<'static>>)), ["an answer cannot borrow: it has no lifetime"]);
}

#[test]
fn a_stream_that_comes_back_borrows_nothing_and_is_told_how_to_live_without() {
    for items in [quote!(Streaming<&Row>), quote!(Streaming<'_, Row>), quote!(Streaming<Cow<'static, str>>)] {
        let found = answer_faults(quote!(rpc::Result<rpc::#items>));
        assert_eq!(found.len(), 1, "{items}: {found:?}");
        assert!(found[0].contains("cannot borrow from `&self`") && found[0].contains("`inner: Arc<Inner>`"), "{found:?}");
    }
    assert_eq!(
        answer_faults(quote!(rpc::Result<impl Stream<Item = &Row>>)),
        ["a stream travels as `rpc::Streaming<T>`, which any stream can be made into"]
    );
}

#[test]
fn nothing_comes_back_from_a_oneway_method() {
    let fault = "nothing comes back from a `oneway` method: it returns `rpc::Result<()>`";
    for answer in [quote!(rpc::Result<u32>), quote!(rpc::Result<(), KvError>), quote!(rpc::Result<rpc::Streaming<u8>>)] {
        assert_eq!(method_faults(quote!(#[rpc(oneway)] async fn log(&self) -> #answer;)), [fault], "{answer}");
    }
}

#[test]
fn a_oneway_method_takes_no_stream() {
    let found = method_faults(quote!(
        #[rpc(oneway)]
        async fn log(&self, lines: rpc::Streaming<Line>) -> rpc::Result<()>;
    ));
    assert_eq!(found, ["a `oneway` method takes no stream: nobody would hear that it was refused"]);
}

#[test]
fn the_sound_methods_of_a_faulty_trait_are_kept() {
    let mut faults = Faults::default();
    let item = parse_quote! {
        trait Kv {
            fn get(&self) -> rpc::Result<()>;
            async fn put(&self) -> rpc::Result<()>;
        }
    };
    let parsed = service(keys(quote!()), item, &mut faults);
    assert!(parsed.sound_head);
    assert_eq!(parsed.service.methods.iter().map(|method| &*method.name).collect::<Vec<_>>(), ["put"]);
}

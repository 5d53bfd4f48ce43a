//! The attribute from end to end: tokens in, tokens out.

use std::path::Path;

use quote::quote;

use super::*;

/// The expansion as a file of Rust.
fn expanded(attr: TokenStream, item: TokenStream) -> String {
    let tokens = service(attr, item);
    prettyplease::unparse(&syn::parse2(tokens).expect("the expansion is a file of Rust"))
}

/// Compares with the file of that name beside this one, or with `BLESS=1` writes it.
fn assert_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/expand/snapshots").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(path.parent().expect("the path has a folder")).expect("the folder can be made");
        std::fs::write(&path, text).expect("the snapshot can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("the snapshot is there; BLESS=1 writes it").replace("\r\n", "\n");
    assert!(expected == text, "{name} has changed; look at it, and bless it with BLESS=1\n\n{text}");
}

#[test]
fn two_methods_expand_to_a_server_and_a_client() {
    let text = expanded(
        quote!(),
        quote! {
            /// A store.
            pub trait Kv {
                /// Reads one key.
                async fn get(&self, key: &str) -> rpc::Result<Option<Bytes>, KvError>;
                async fn import(&self, cx: &rpc::Context, table: String, rows: rpc::Streaming<Row>) -> rpc::Result<Vec<u8>>;
            }
        },
    );
    assert_snapshot("two_methods.txt", &text);
}

/// One form each, so that a change of the expansion is read where it belongs.
#[test]
fn each_form_expands_as_its_snapshot_says() {
    let forms = [
        (
            "unary.txt",
            quote!(),
            quote! {
                pub trait Kv {
                    async fn put(
                        &self,
                        key: &str,
                        bytes: &[u8],
                        rows: &[Row],
                        numbers: &[u64],
                        row: &Row,
                        vector: &Vec<u8>,
                        owned: Vec<u8>,
                        maybe: Option<Vec<u8>>,
                        table: Table,
                        count: u32,
                        cx: &rpc::Context,
                    ) -> rpc::Result<Stats, KvError>;
                }
            },
        ),
        (
            "server_stream.txt",
            quote!(),
            quote!(
                pub trait Kv {
                    async fn watch(&self, prefix: &str) -> rpc::Result<rpc::Streaming<Event, WatchError>, KvError>;
                }
            ),
        ),
        (
            "client_stream.txt",
            quote!(),
            quote!(
                pub trait Kv {
                    async fn import(&self, table: &str, rows: rpc::Streaming<Row>) -> rpc::Result<u64>;
                }
            ),
        ),
        (
            "bidi_stream.txt",
            quote!(),
            quote!(
                pub trait Kv {
                    async fn exchange(&self, chunks: rpc::Streaming<Vec<u8>>) -> rpc::Result<rpc::Streaming<Vec<u8>>>;
                }
            ),
        ),
        (
            "oneway.txt",
            quote!(),
            quote!(
                pub trait Kv {
                    #[rpc(oneway)]
                    async fn log(&self, line: &str) -> rpc::Result<()>;
                }
            ),
        ),
        (
            "pinned_name.txt",
            quote!(),
            quote!(
                pub(crate) trait Kv {
                    #[rpc(name = "get")]
                    async fn fetch(&self) -> rpc::Result<()>;
                }
            ),
        ),
        (
            "idempotent_and_spawn.txt",
            quote!(),
            quote!(
                trait Kv {
                    #[rpc(idempotent, spawn)]
                    async fn digest(&self) -> rpc::Result<u64>;
                }
            ),
        ),
        (
            "alias.txt",
            quote!(),
            quote!(
                trait Kv {
                    async fn get(&self, key: &str) -> Result<Row>;
                }
            ),
        ),
        (
            "generic.txt",
            quote!(),
            quote! {
                pub trait Store<K: Value, V = String, const N: usize = 4>: Clone
                where
                    V: Value,
                {
                    async fn get(&self, key: &K) -> rpc::Result<Page<V, N>>;
                }
            },
        ),
        (
            "local.txt",
            quote!(local),
            quote! {
                /// Stays at home.
                pub trait Kv {
                    async fn get(&self, key: &str, cx: &rpc::Context) -> rpc::Result<Row, KvError>;
                    async fn watch(&self, tables: rpc::Streaming<String>) -> rpc::Result<rpc::Streaming<Event>>;
                }
            },
        ),
        (
            "documented.txt",
            quote!(),
            quote! {
                /// A store of keys.
                ///
                /// It is small.
                #[deprecated = "use a larger one"]
                pub trait Kv {
                    /// Reads one key.
                    ///
                    /// # Errors
                    /// If there is none.
                    async fn get(&self) -> rpc::Result<()>;
                    #[deprecated]
                    async fn put(&self) -> rpc::Result<()>;
                }
            },
        ),
    ];
    for (name, attr, item) in forms {
        assert_snapshot(name, &expanded(attr, item));
    }
}

#[test]
fn the_words_about_a_trait_are_those_about_its_client_and_server() {
    let text = expanded(
        quote!(),
        quote! {
            /// A store of keys.
            pub trait Kv {
                /// Reads one key.
                async fn get(&self) -> rpc::Result<()>;
                async fn put(&self) -> rpc::Result<()>;
            }
        },
    );
    for line in
        ["///Serves a [`Kv`]. Clones share the service.", "///Calls a [`Kv`], here or elsewhere. Clones share its session."]
    {
        assert!(text.contains(&format!("{line}\n///\n/// A store of keys.\n")), "{line}");
    }
    assert!(text.contains("    /// Reads one key.\n    pub fn get(&self)"));
    assert!(text.contains("    ///Calls [`Kv::put`].\n    pub fn put(&self)"));
}

#[test]
fn the_expansion_names_the_facade_under_the_given_path_only() {
    let item = quote!(
        trait Kv {
            async fn get(&self) -> Result<Vec<u8>>;
        }
    );
    let text = expanded(quote!(crate = "crate::net"), item);
    assert!(text.contains("crate::net::__private::Call"));
    assert!(!text.contains("::rpc"));
}

#[test]
fn a_oneway_method_calls_back_nothing() {
    let text = expanded(
        quote!(),
        quote!(
            trait Kv {
                #[rpc(oneway)]
                async fn log(&self, line: &str) -> rpc::Result<()>;
            }
        ),
    );
    assert!(text.contains("channel.one_way(0u32, &(line,))"));
    assert!(text.contains("request.done(result)"));
    assert!(!text.contains("oneway"), "our own attribute does not stay on the trait");
}

#[test]
fn all_faults_are_reported_together() {
    let text = expanded(
        quote!(retries = 3),
        quote! {
            trait Kv<'a> {
                const LIMIT: u32;
                fn get(&mut self, key: &mut str);
                #[rpc(twice)]
                async fn put(&self, a: rpc::Streaming<A>, b: rpc::Streaming<B>) -> rpc::Result<()>;
            }
        },
    );
    assert_eq!(text.matches("::core::compile_error!").count(), 9);
}

#[test]
fn a_faulty_trait_is_emitted_again_with_its_sound_siblings() {
    let text = expanded(
        quote!(),
        quote! {
            trait Kv {
                fn get(&self) -> rpc::Result<()>;
                #[rpc(unheard_of)]
                async fn put(&self, (a, b): (u8, u8)) -> rpc::Result<()>;
                async fn delete(&self) -> rpc::Result<()>;
            }
        },
    );
    assert!(text.contains("fn get(&self) -> rpc::Result<()>;"));
    assert!(text.contains("fn put(\n        &self,\n        _: (u8, u8),\n    ) -> impl ::core::future::Future"));
    assert!(text.contains("struct KvServer<S>"));
    assert!(text.contains("fn delete(&self) -> ::rpc::__private::Call<(), ::rpc::__private::Never>"));
    assert!(!text.contains("impl Kv for KvClient"), "the client has not all methods");
    assert!(!text.contains("#[rpc"), "our own attribute does not stay on the trait");
}

#[test]
fn a_faulty_head_leaves_the_trait_alone() {
    let text = expanded(
        quote!(),
        quote!(
            trait Kv<'a> {
                async fn get(&self) -> rpc::Result<()>;
            }
        ),
    );
    assert!(text.contains("trait Kv<'a>: ::core::marker::Send + ::core::marker::Sync"));
    assert!(!text.contains("KvServer"));
}

#[test]
fn what_is_no_trait_is_left_as_it_was() {
    let text = expanded(
        quote!(),
        quote!(
            struct Kv;
        ),
    );
    assert!(text.contains("struct Kv;"));
    assert!(text.contains("`#[rpc::service]` stands on a trait"));
    let tokens = service(quote!(), quote!(trait Kv { async fn })).to_string();
    assert!(tokens.starts_with("trait Kv { async fn }"), "{tokens}");
    assert!(tokens.contains("compile_error"));
}

/// A store.
pub trait Kv: ::core::marker::Send + ::core::marker::Sync {
    /// Reads one key.
    fn get(
        &self,
        key: &str,
    ) -> impl ::core::future::Future<
        Output = rpc::Result<Option<Bytes>, KvError>,
    > + ::core::marker::Send;
    fn import(
        &self,
        cx: &rpc::Context,
        table: String,
        rows: rpc::Streaming<Row>,
    ) -> impl ::core::future::Future<
        Output = rpc::Result<Vec<u8>>,
    > + ::core::marker::Send;
}
#[automatically_derived]
impl<__T: Kv + ?::core::marker::Sized> Kv for ::std::sync::Arc<__T> {
    fn get(
        &self,
        key: &str,
    ) -> impl ::core::future::Future<
        Output = rpc::Result<Option<Bytes>, KvError>,
    > + ::core::marker::Send {
        <__T as Kv>::get(self, key)
    }
    fn import(
        &self,
        cx: &rpc::Context,
        table: String,
        rows: rpc::Streaming<Row>,
    ) -> impl ::core::future::Future<
        Output = rpc::Result<Vec<u8>>,
    > + ::core::marker::Send {
        <__T as Kv>::import(self, cx, table, rows)
    }
}
const _: fn() = || {
    fn argument<__T: ::rpc::__private::Argument>() {}
    fn answer<__T: ::rpc::__private::Answer>() {}
    fn error<__T: ::rpc::__private::AppError>() {}
    fn outcome<__T: ::rpc::__private::Outcome>() {}
    answer::<Option<Bytes>>();
    error::<KvError>();
    outcome::<rpc::Result<Option<Bytes>, KvError>>();
    argument::<String>();
    argument::<Row>();
    answer::<Vec<u8>>();
    outcome::<rpc::Result<Vec<u8>>>();
};
///Serves a [`Kv`]. Clones share the service.
#[allow(dead_code)]
pub struct KvServer<S> {
    service: ::std::sync::Arc<S>,
}
#[allow(dead_code)]
impl<S: Kv + 'static> KvServer<S> {
    ///Takes the [`Kv`] to serve; an `Arc` of one is one too.
    pub fn new(service: S) -> Self {
        Self {
            service: ::std::sync::Arc::new(service),
        }
    }
}
#[automatically_derived]
impl<S> ::core::clone::Clone for KvServer<S> {
    fn clone(&self) -> Self {
        Self {
            service: ::core::clone::Clone::clone(&self.service),
        }
    }
}
#[automatically_derived]
impl<S> ::core::fmt::Debug for KvServer<S> {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.debug_struct("KvServer").finish_non_exhaustive()
    }
}
#[automatically_derived]
impl<__S: Kv + 'static> ::rpc::__private::Service for KvServer<__S> {
    fn info(&self) -> &'static ::rpc::__private::ServiceInfo {
        <KvClient as ::rpc::__private::Client>::info()
    }
    fn call(&self, request: ::rpc::__private::Request) -> ::rpc::__private::ReplyFuture {
        let service = ::core::clone::Clone::clone(&self.service);
        match request.method() {
            0u32 => {
                ::std::boxed::Box::pin(async move {
                    let result = {
                        let (key,) = match request
                            .decode::<(::rpc::__private::Str<'_>,)>()
                        {
                            ::core::result::Result::Ok(arguments) => arguments,
                            ::core::result::Result::Err(fault) => {
                                return ::rpc::__private::Reply::fault(fault);
                            }
                        };
                        let result = <__S as Kv>::get(&*service, &key).await;
                        result
                    };
                    request.reply(result)
                })
            }
            1u32 => {
                ::std::boxed::Box::pin(async move {
                    let mut request = request;
                    let rows = request.take_stream::<Row, Row>();
                    let result = {
                        let (table,) = match request.decode::<(String,)>() {
                            ::core::result::Result::Ok(arguments) => arguments,
                            ::core::result::Result::Err(fault) => {
                                return ::rpc::__private::Reply::fault(fault);
                            }
                        };
                        let cx = &request.context();
                        let result = <__S as Kv>::import(&*service, cx, table, rows)
                            .await;
                        result
                    };
                    request.reply(result.map(::rpc::__private::ByteVec))
                })
            }
            _ => ::std::boxed::Box::pin(async move { request.unknown_method() }),
        }
    }
}
///Calls a [`Kv`], here or elsewhere. Clones share its session.
#[allow(dead_code)]
pub struct KvClient {
    backend: ::rpc::__private::Backend<dyn __KvDyn>,
}
#[automatically_derived]
impl ::core::clone::Clone for KvClient {
    fn clone(&self) -> Self {
        Self {
            backend: ::core::clone::Clone::clone(&self.backend),
        }
    }
}
#[automatically_derived]
impl ::core::fmt::Debug for KvClient {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.debug_struct("KvClient").finish_non_exhaustive()
    }
}
#[automatically_derived]
impl ::rpc::__private::Client for KvClient {
    fn info() -> &'static ::rpc::__private::ServiceInfo {
        static INFO: ::rpc::__private::ServiceInfo = ::rpc::__private::ServiceInfo {
            name: "Kv",
            methods: &[
                ::rpc::__private::MethodInfo {
                    name: "get",
                    hash: 6351727844950286067u64,
                    kind: ::rpc::__private::MethodKind::Unary,
                },
                ::rpc::__private::MethodInfo {
                    name: "import",
                    hash: 8881130767908388888u64,
                    kind: ::rpc::__private::MethodKind::ClientStream,
                },
            ],
            fingerprint: 1321556833918904942u64,
        };
        &INFO
    }
    fn from_channel(channel: ::rpc::__private::Channel) -> Self {
        Self {
            backend: ::rpc::__private::Backend::Remote(channel),
        }
    }
}
#[allow(dead_code, clippy::all)]
impl KvClient {
    /// Reads one key.
    pub fn get(&self, key: &str) -> ::rpc::__private::Call<Option<Bytes>, KvError> {
        match &self.backend {
            ::rpc::__private::Backend::Remote(channel) => {
                channel.unary::<_, Option<Bytes>, _, _>(0u32, &(key,))
            }
            ::rpc::__private::Backend::Local(service) => {
                let service = ::core::clone::Clone::clone(service);
                let key = ::std::borrow::ToOwned::to_owned(key);
                ::rpc::__private::Call::local(async move {
                    __KvDyn::__get(&*service, &key).await
                })
            }
        }
    }
    ///Calls [`Kv::import`].
    pub fn import(
        &self,
        table: String,
        rows: impl ::rpc::__private::Stream<Item = Row> + ::core::marker::Send + 'static,
    ) -> ::rpc::__private::Call<Vec<u8>, ::rpc::__private::Never> {
        match &self.backend {
            ::rpc::__private::Backend::Remote(channel) => {
                channel
                    .client_stream::<
                        _,
                        Row,
                        _,
                        _,
                        ::rpc::__private::ByteVec,
                        _,
                        _,
                    >(1u32, &(&table,), rows)
            }
            ::rpc::__private::Backend::Local(service) => {
                let service = ::core::clone::Clone::clone(service);
                let rows = ::rpc::__private::Streaming::new(rows);
                ::rpc::__private::Call::local(async move {
                    let cx = ::rpc::__private::Context::current();
                    __KvDyn::__import(&*service, &cx, table, rows).await
                })
            }
        }
    }
}
#[allow(clippy::all)]
trait __KvDyn: ::core::marker::Send + ::core::marker::Sync {
    fn __get<'life>(
        &'life self,
        key: &'life str,
    ) -> ::core::pin::Pin<
        ::std::boxed::Box<
            dyn ::core::future::Future<
                Output = rpc::Result<Option<Bytes>, KvError>,
            > + ::core::marker::Send + 'life,
        >,
    >;
    fn __import<'life>(
        &'life self,
        cx: &'life rpc::Context,
        table: String,
        rows: rpc::Streaming<Row>,
    ) -> ::core::pin::Pin<
        ::std::boxed::Box<
            dyn ::core::future::Future<
                Output = rpc::Result<Vec<u8>>,
            > + ::core::marker::Send + 'life,
        >,
    >;
}
#[automatically_derived]
impl<__S: Kv + 'static> __KvDyn for __S {
    fn __get<'life>(
        &'life self,
        key: &'life str,
    ) -> ::core::pin::Pin<
        ::std::boxed::Box<
            dyn ::core::future::Future<
                Output = rpc::Result<Option<Bytes>, KvError>,
            > + ::core::marker::Send + 'life,
        >,
    > {
        ::std::boxed::Box::pin(<__S as Kv>::get(self, key))
    }
    fn __import<'life>(
        &'life self,
        cx: &'life rpc::Context,
        table: String,
        rows: rpc::Streaming<Row>,
    ) -> ::core::pin::Pin<
        ::std::boxed::Box<
            dyn ::core::future::Future<
                Output = rpc::Result<Vec<u8>>,
            > + ::core::marker::Send + 'life,
        >,
    > {
        ::std::boxed::Box::pin(<__S as Kv>::import(self, cx, table, rows))
    }
}
#[automatically_derived]
impl<__S: Kv + 'static> ::rpc::__private::IntoLocal<KvClient> for KvServer<__S> {
    fn into_local(self) -> KvClient {
        KvClient {
            backend: ::rpc::__private::Backend::Local(self.service),
        }
    }
}
#[automatically_derived]
impl Kv for KvClient {
    async fn get(&self, key: &str) -> rpc::Result<Option<Bytes>, KvError> {
        match &self.backend {
            ::rpc::__private::Backend::Remote(_) => {
                let call = KvClient::get(self, key);
                call.await
            }
            ::rpc::__private::Backend::Local(service) => {
                ::rpc::__private::Direct::new(__KvDyn::__get(&**service, key)).await
            }
        }
    }
    async fn import(
        &self,
        cx: &rpc::Context,
        table: String,
        rows: rpc::Streaming<Row>,
    ) -> rpc::Result<Vec<u8>> {
        match &self.backend {
            ::rpc::__private::Backend::Remote(channel) => {
                let call = channel
                    .client_stream_of::<
                        _,
                        Row,
                        _,
                        ::rpc::__private::ByteVec,
                        _,
                        _,
                    >(1u32, &(&table,), rows)
                    .in_context(cx);
                call.await
            }
            ::rpc::__private::Backend::Local(service) => {
                ::rpc::__private::Direct::new(
                        __KvDyn::__import(&**service, cx, table, rows),
                    )
                    .in_context(cx)
                    .await
            }
        }
    }
}

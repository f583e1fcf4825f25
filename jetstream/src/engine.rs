//! The engine that owns every stream of a server.

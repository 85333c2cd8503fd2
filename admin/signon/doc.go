// Package signon makes sure who somebody is by something other than a token of ours: by the
// word of an OpenID Connect issuer (OpenID Connect Core 1.0, with PKCE, RFC 7636), or by a
// client's certificate.
//
// Who is known that way is a [Person] of the configuration, by name: the same name as in the
// tokens, so that nobody is two persons because there are two ways in (promise P9). It promises
// that roles come from the configuration alone, never from what an issuer says; and that roles
// that want a second factor are there only if the issuer has said that there was one.
//
// It refuses whoever the configuration doesn't name, an address that the issuer hasn't verified,
// a word of the issuer that isn't for us, has expired, or answers another question than ours.
// While the issuer can't be reached nobody signs in by it; tokens and certificates go on.
//
// The web page serves the way through the issuer's page; the API takes the issuer's tokens and
// certificates. All methods are safe for concurrent use.
package signon

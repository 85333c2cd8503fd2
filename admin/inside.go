package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"mailcutover/routing"
)

// Identity is a person whom this process has made sure of: by a token, by an issuer whom the
// configuration trusts, or by a certificate. What it may do is what its roles say.
type Identity struct {
	Person   string
	By       string             // what it was made sure of by: the token's name, or the kind of sign-on
	Roles    []Role             // none: everything in a lab, else nothing
	Agencies []routing.AgencyID // that it may act on; none: all
	Subject  string             // what the issuer said; empty: not by its word
}

func (s *Server) callerBy(id *Identity) caller {
	return caller{token: id.By, person: id.Person, roles: id.Roles, agencies: id.Agencies, everything: s.Lab && len(id.Roles) == 0}
}

// Identify returns who has a token; false if nobody has it now.
//
// The digests of all tokens are compared, each in constant time over its whole length, so
// that how long it takes tells nothing about which one was nearly right.
func (s *Server) Identify(token string) (Identity, bool) {
	digest := sha256.Sum256([]byte(token))
	var id Identity
	found := 0
	for _, t := range s.Tokens() {
		if subtle.ConstantTimeCompare(digest[:], t.SHA256[:]) == 1 {
			id, found = Identity{Person: t.Person, By: t.Name, Roles: t.Roles, Agencies: t.Agencies}, 1
		}
	}
	return id, found == 1 && token != "" && id.Person != ""
}

// As returns a client whose calls don't leave this process, and are made by id: with its
// rights, and under its name in all logs. through says in the log by what.
func (s *Server) As(id Identity, through string) *Client {
	return &Client{base: "http://" + through, http: &http.Client{Transport: &inside{server: s, id: id, through: through}}}
}

// insideKey is that of the caller of a request that was made within this process.
type insideKey struct{}

// inside answers requests by a server of this process.
type inside struct {
	server  *Server
	id      Identity
	through string
}

// errGone is what a handler is told whose answer nobody reads any more.
var errGone = errors.New("the caller has gone")

// RoundTrip implements http.RoundTripper. The handler has ended when the body's Close
// returns, or when all of it was read.
func (t *inside) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), insideKey{}, t.server.callerBy(&t.id)))
	r = r.Clone(ctx)
	r.RequestURI, r.RemoteAddr = r.URL.RequestURI(), t.through
	r.Header.Del("Authorization")
	if r.Body == nil {
		r.Body = http.NoBody
	}
	read, write := io.Pipe()
	w := &insideAnswer{header: make(http.Header), body: write, status: make(chan int, 1)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer func() {
			if p := recover(); p != nil { // http.ErrAbortHandler: all else ServeHTTP has caught
				_ = write.CloseWithError(io.ErrUnexpectedEOF)
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			w.WriteHeader(http.StatusOK)
			_ = write.Close()
		}()
		t.server.ServeHTTP(w, r)
	}()
	leave := func() error {
		cancel()
		_ = read.CloseWithError(errGone)
		<-ended
		return nil
	}
	select {
	case code := <-w.status:
		return &http.Response{
			StatusCode: code, Status: fmt.Sprintf("%d %s", code, http.StatusText(code)), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: w.sent, Body: &insideBody{Reader: read, leave: leave}, ContentLength: -1, Request: r,
		}, nil
	case <-ctx.Done():
		_ = leave()
		return nil, r.Context().Err()
	}
}

type insideBody struct {
	io.Reader
	leave func() error
}

// Close implements io.Closer.
func (b *insideBody) Close() error { return b.leave() }

// insideAnswer hands an answer over as it is written.
type insideAnswer struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	sent   http.Header
	status chan int
}

// Header implements http.ResponseWriter.
func (w *insideAnswer) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter.
func (w *insideAnswer) WriteHeader(code int) {
	w.once.Do(func() {
		w.sent = w.header.Clone()
		w.status <- code
	})
}

// Write implements io.Writer.
func (w *insideAnswer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// Flush implements http.Flusher: nothing is kept back.
func (w *insideAnswer) Flush() { w.WriteHeader(http.StatusOK) }

package admin

import (
	"context"
	"crypto/sha256"
	"net/http"
	"strings"

	"mailcutover/routing"
)

// Token lets one person, or a program of theirs, use the API.
type Token struct {
	Name   string            // of the token, for logs
	Person string            // who is behind it; two tokens of one person are one person
	SHA256 [sha256.Size]byte // of the token's text

	Roles    []Role             // none: everything in a lab, else nothing
	Agencies []routing.AgencyID // that it may act on; none: all
}

// caller is who makes a call; the zero value is nobody.
type caller struct {
	token, person string
	roles         []Role
	agencies      []routing.AgencyID
	everything    bool // a token without roles, in a lab
}

type requestKey struct{}

// request is what is known of a call under way.
type request struct {
	id        string
	caller    caller
	operation string // id of the call in the document
	recorded  uint64 // number of its last audit record
	peer      string // the node that makes this call for its caller; empty: the caller does
	of        string // then the id of the call that the node answers
}

func requestOf(ctx context.Context) *request {
	if r, ok := ctx.Value(requestKey{}).(*request); ok {
		return r
	}
	return &request{}
}

func callerOf(ctx context.Context) caller { return requestOf(ctx).caller }

// authenticate returns who makes a call: whom this process itself calls for, who has the token
// that is sent, or, where none is, whose certificate the connection has.
func (s *Server) authenticate(r *http.Request) (caller, bool) {
	if who, ok := r.Context().Value(insideKey{}).(caller); ok {
		return who, who.person != ""
	}
	sent := r.Header.Get("Authorization")
	if sent == "" {
		return s.byCertificate(r)
	}
	scheme, secret, _ := strings.Cut(sent, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return caller{}, false
	}
	if id, ok := s.Identify(secret); ok {
		return s.callerBy(&id), true
	}
	if s.Bearer == nil {
		return caller{}, false
	}
	id, err := s.Bearer(r.Context(), secret)
	if err != nil {
		s.Logger.Warn("token of an issuer not taken", "peer", r.RemoteAddr, "error", err)
		return caller{}, false
	}
	return s.callerBy(&id), id.Person != ""
}

func (s *Server) byCertificate(r *http.Request) (caller, bool) {
	if s.Certificate == nil || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return caller{}, false
	}
	id, err := s.Certificate(r.TLS.VerifiedChains[0][0])
	if err != nil {
		s.Logger.Warn("client certificate not taken", "peer", r.RemoteAddr, "error", err)
		return caller{}, false
	}
	return s.callerBy(&id), id.Person != ""
}

package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
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

// authenticate returns who makes a call. The digests of all tokens are compared, each in
// constant time over its whole length, so that how long it takes tells nothing about
// which one was nearly right.
func (s *Server) authenticate(r *http.Request) (caller, bool) {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	digest := sha256.Sum256([]byte(secret))
	var who caller
	found := 0
	for _, t := range s.Tokens() {
		if subtle.ConstantTimeCompare(digest[:], t.SHA256[:]) == 1 {
			who, found = caller{
				token: t.Name, person: t.Person, roles: t.Roles, agencies: t.Agencies, everything: s.Lab && len(t.Roles) == 0,
			}, 1
		}
	}
	if !strings.EqualFold(scheme, "Bearer") || secret == "" || found != 1 || who.person == "" {
		return caller{}, false
	}
	return who, true
}

package admin

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// Token lets one person, or a program of theirs, use the API.
type Token struct {
	Name   string            // of the token, for logs
	Person string            // who is behind it; two tokens of one person are one person
	SHA256 [sha256.Size]byte // of the token's text
}

// caller is who makes a call; the zero value is nobody.
type caller struct {
	token, person string
}

type requestKey struct{}

// request is what is known of a call under way.
type request struct {
	id     string
	caller caller
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
			who, found = caller{token: t.Name, person: t.Person}, 1
		}
	}
	if !strings.EqualFold(scheme, "Bearer") || secret == "" || found != 1 || who.person == "" {
		return caller{}, false
	}
	return who, true
}

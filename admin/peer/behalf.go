package peer

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// scheme is the one of the Authorization header that carries the nodes' secret.
const scheme = "Mailcutover-Peer"

// headerBehalf says on whose behalf a node calls: a Behalf in JSON, in base64.
const headerBehalf = "Mailcutover-On-Behalf"

// maxBehalf bounds headerBehalf, which net/http has bounded already together with all others.
const maxBehalf = 8 << 10

// Behalf says for whom a node calls another.
type Behalf struct {
	Node       string   `json:"node"`    // the one that was called by the person
	Request    string   `json:"request"` // id of that call, for the logs of both
	Person     string   `json:"person"`
	Token      string   `json:"token"` // its name
	Roles      []string `json:"roles"`
	Agencies   []string `json:"agencies,omitempty"`   // that the token is for; none: all
	Everything bool     `json:"everything,omitempty"` // a token without roles, in a lab
}

// Claims reports whether a request says that it comes from a node; [Open] says whether it does.
func Claims(r *http.Request) bool {
	s, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(s, scheme)
}

// Open returns on whose behalf another node makes this request; false if it doesn't know the
// secret, or doesn't say for whom. An empty secret is known by nobody.
func Open(r *http.Request, secret string) (Behalf, bool) {
	s, sent, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	// Over digests, so that how long it takes tells neither where they differ nor how long
	// the secret is.
	is, want := sha256.Sum256([]byte(sent)), sha256.Sum256([]byte(secret))
	same := subtle.ConstantTimeCompare(is[:], want[:]) == 1
	if !same || secret == "" || !strings.EqualFold(s, scheme) {
		return Behalf{}, false
	}
	text := r.Header.Get(headerBehalf)
	if len(text) > maxBehalf {
		return Behalf{}, false
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return Behalf{}, false
	}
	var b Behalf
	if json.Unmarshal(raw, &b) != nil || b.Person == "" || b.Node == "" {
		return Behalf{}, false
	}
	return b, true
}

// seal puts secret and b into a request's headers.
func seal(h http.Header, secret string, b *Behalf) error {
	raw, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("say on whose behalf a node is called: %w", err)
	}
	h.Set("Authorization", scheme+" "+secret)
	h.Set(headerBehalf, base64.StdEncoding.EncodeToString(raw))
	return nil
}

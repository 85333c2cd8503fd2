package ldapdir

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

// maxProofs is how many passwords are checked at the same moment; more wait.
const maxProofs = 64

// Refused is the error of [Client.Verify] when the server has refused a user's password.
type Refused struct {
	Directory string
	Why       string // for logs; nothing of the password is in it
}

// Error implements error.
func (r *Refused) Error() string { return "directory " + r.Directory + ": " + r.Why }

// errInTheClear is for a server to which passwords would go in plain text.
var errInTheClear = errors.New("passwords would go in plain text")

// mayVerify returns nil if users' passwords may be sent to all servers, else errInTheClear: they
// go by TLS, or stay on this host.
func (c *Client) mayVerify() error {
	for _, s := range c.o.Servers {
		if u, err := url.Parse(s); err != nil || u.Scheme != "ldaps" && !c.o.StartTLS && !loopback(u.Hostname()) {
			return fmt.Errorf("directory %s, server %s: %w", c.o.Name, s, errInTheClear)
		}
	}
	return nil
}

// Verify checks a user's password by a simple bind as the object with this directory id. nil: it
// is right. *Refused: the server said invalidCredentials, and not for a reason that leaves open
// whether it is right. Any other error proves nothing, ErrUnavailable if the directory couldn't
// be asked. The password isn't kept.
//
// An empty password is refused and never sent: a server would take it for an anonymous bind and
// say that all is well (RFC 4513 section 5.1.2).
func (c *Client) Verify(ctx context.Context, id routing.MailboxID, password []byte) error {
	if len(password) == 0 {
		return &Refused{c.o.Name, "the password is empty"}
	}
	if err := c.mayVerify(); err != nil {
		return err
	}
	select {
	case c.proofs <- struct{}{}:
		defer func() { <-c.proofs }()
	case <-ctx.Done():
		return fmt.Errorf("ask directory %s: %w: %w", c.o.Name, ErrUnavailable, context.Cause(ctx))
	}
	dn, err := c.nameOf(ctx, id)
	if err != nil {
		return err
	}
	var answer error
	err = c.on(ctx, proving, func(conn *connection) error {
		stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
		err := conn.Bind(dn, string(password))
		if !stop() {
			return context.Cause(ctx) // it may have been cut: nothing is known
		}
		if ldap.IsErrorWithCode(err, ldap.LDAPResultInvalidCredentials) {
			answer, err = c.judge(err), nil
		}
		return err
	})
	if err != nil {
		return err
	}
	return answer
}

// nameOf returns the DN of the one object with this id.
func (c *Client) nameOf(ctx context.Context, id routing.MailboxID) (string, error) {
	filter, err := c.filter(&directory.Query{ID: id})
	if err != nil {
		return "", fmt.Errorf("ask directory %s: %w", c.o.Name, err)
	}
	request := c.request(c.o.Base, ldap.ScopeWholeSubtree, filter)
	request.Attributes = []string{"1.1"} // none (RFC 4511 section 4.5.1.8)
	var objects []directory.Object
	err = c.on(ctx, asking, func(conn *connection) (err error) {
		objects, _, err = c.find(ctx, conn, request) // one with this id is enough
		return err
	})
	switch {
	case err != nil:
		return "", err
	case len(objects) != 1:
		return "", fmt.Errorf("directory %s has %d objects with the id %s, want 1", c.o.Name, len(objects), id)
	case objects[0].DN == "":
		return "", fmt.Errorf("directory %s: the object with the id %s has no name", c.o.Name, id) // a bind without one is anonymous
	}
	return objects[0].DN, nil
}

// subcodes are what Active Directory says beside invalidCredentials, as "data 52e" in the text
// (the codes of Windows' logon errors, in hexadecimal; MS-ERREF section 2.2). refused: the
// directory has looked, and this user isn't to get in with this password.
var subcodes = map[string]struct {
	why     string
	refused bool
}{
	"52e": {"the password is wrong", true},
	"530": {"the user may not log in at this time", true},
	"531": {"the user may not log in from here", true},
	"532": {"the password has expired", true},
	"533": {"the account is disabled", true},
	"701": {"the account has expired", true},
	"773": {"the user has to change the password first", true},
	"525": {"the user isn't there", false},  // it was found a moment ago
	"775": {"the account is locked", false}, // after too many failures, whatever the password
}

// judge says what invalidCredentials means.
func (c *Client) judge(err error) error {
	text := ""
	if e := (*ldap.Error)(nil); errors.As(err, &e) && e.Err != nil {
		text = e.Err.Error()
	}
	_, rest, ok := strings.Cut(text, "AcceptSecurityContext error, data ")
	if !ok {
		return &Refused{c.o.Name, "the password is wrong"}
	}
	code, _, _ := strings.Cut(rest, ",")
	code = strings.ToLower(strings.TrimSpace(code))
	switch known, ok := subcodes[code]; {
	case !ok:
		return fmt.Errorf("directory %s: refused for a reason that isn't known (data %.8q)", c.o.Name, code)
	case known.refused:
		return &Refused{c.o.Name, known.why + " (data " + code + ")"}
	default:
		return fmt.Errorf("directory %s: %s (data %s)", c.o.Name, known.why, code)
	}
}

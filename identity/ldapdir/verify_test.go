package ldapdir

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/routing"
	"mailcutover/test/peers"
)

// withPassword is an entry whose password is "secret N".
func withPassword(n int) (string, routing.MailboxID) {
	return user(n, fmt.Sprintf("userPassword: secret %d", n))
}

func isRefused(err error) bool { return errors.As(err, new(*Refused)) }

func TestVerify(t *testing.T) {
	first, one := withPassword(1)
	second, two := withPassword(2)
	none, without := user(3)
	twin, _ := withPassword(4)
	twin = strings.ReplaceAll(twin, "cn=user 4", "cn=twin 4")
	twin = strings.ReplaceAll(twin, "cn: user 4", "cn: twin 4")
	fourth, four := withPassword(4)
	s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: people + first + second + none + twin + fourth})
	c := newClient(t, options("ldap://"+s.Addr))
	for _, test := range []struct {
		name     string
		id       routing.MailboxID
		password string
		refused  bool
		err      bool
	}{
		{"right", one, "secret 1", false, false},
		{"wrong", one, "secret", true, true},
		{"right after a wrong one, on the same connection", one, "secret 1", false, false},
		{"another's", one, "secret 2", true, true},
		{"right, of another user on the same connection", two, "secret 2", false, false},
		{"empty", one, "", true, true},
		{"in another case", one, "SECRET 1", true, true},
		{"of nobody", routing.MailboxID{9}, "secret 1", false, true},
		{"of two", four, "secret 4", false, true},
		{"of somebody without one", without, "x", true, true},
	} {
		err := c.Verify(t.Context(), test.id, []byte(test.password))
		if (err != nil) != test.err || isRefused(err) != test.refused {
			t.Errorf("%s: %v", test.name, err)
		}
		if err != nil && test.password != "" && strings.Contains(err.Error(), test.password) && test.password != "x" && test.password != "secret" {
			t.Errorf("%s: the password is in %q", test.name, err)
		}
	}
	// What proves passwords asks nothing: what is asked is asked as ourselves.
	if all, _, err := readAll(t.Context(), c); err != nil || len(all) != 5 {
		t.Errorf("read %d objects behind it, %v", len(all), err)
	}

	var group sync.WaitGroup
	for n := range 40 {
		group.Go(func() {
			id, password, wrong := one, "secret 1", n%4 == 0
			if n%2 == 0 {
				id, password = two, "secret 2"
			}
			if wrong {
				password += "!"
			}
			if err := c.Verify(t.Context(), id, []byte(password)); isRefused(err) != wrong || err != nil && !wrong {
				t.Errorf("at once, %q: %v", password, err)
			}
		})
	}
	group.Wait()

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Verify(ended, one, []byte("secret 1")); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after its context: %v", err)
	}
	s.Stop()
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(t.Context(), one, []byte("secret 1")); err != nil {
		t.Errorf("after a restart, with connections kept from before: %v", err)
	}
	s.Kill()
	for _, password := range []string{"secret 1", "wrong"} {
		if err := c.Verify(t.Context(), one, []byte(password)); !errors.Is(err, ErrUnavailable) || isRefused(err) {
			t.Errorf("%q while the directory is down: %v", password, err)
		}
	}
	if err := c.Verify(t.Context(), one, nil); !isRefused(err) {
		t.Errorf("an empty password while the directory is down: %v; it has nobody to be sent to", err)
	}
}

// A server that refuses our own bind has said nothing of the user's password.
func TestVerifyWithoutAccess(t *testing.T) {
	entry, id := withPassword(1)
	s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: people + entry})
	o := options("ldap://" + s.Addr)
	o.Password = func() (string, error) { return "not ours", nil }
	if err := newClient(t, o).Verify(t.Context(), id, []byte("secret 1")); err == nil || isRefused(err) {
		t.Errorf("our own password is wrong: %v", err)
	}
}

// No password goes over a network in plain text.
func TestVerifyInTheClear(t *testing.T) {
	for server, starttls := range map[string]bool{"ldap://192.0.2.1": false, "ldap://dc.example.org:3268": false, "ldaps://192.0.2.1": true, "ldap://127.0.0.1:1": true, "ldap://localhost": true} {
		o := options(server)
		o.BindDN, o.Password = "", nil
		if err := newClient(t, o).mayVerify(); errors.Is(err, errInTheClear) == starttls {
			t.Errorf("%s: %v", server, err)
		}
	}
	o := options("ldap://127.0.0.1:1", "ldap://192.0.2.1:389")
	o.BindDN, o.Password = "", nil
	if err := newClient(t, o).Verify(t.Context(), routing.MailboxID{1}, []byte("x")); !errors.Is(err, errInTheClear) {
		t.Errorf("one of the servers is in the clear: %v", err)
	}
	o = options("ldap://192.0.2.1:389")
	o.BindDN, o.Password, o.StartTLS = "", nil, true
	if err := newClient(t, o).mayVerify(); err != nil {
		t.Errorf("StartTLS: %v", err)
	}
}

// Active Directory says invalidCredentials of much that isn't a wrong password.
func TestActiveDirectorySubcodes(t *testing.T) {
	c := newClient(t, options("ldap://127.0.0.1:1"))
	for data, refused := range map[string]bool{
		"52e": true, "530": true, "531": true, "532": true, "533": true, "701": true, "773": true, "52E": true,
		"525": false, "775": false, "0": false, "": false, "57": false,
	} {
		text := "80090308: LdapErr: DSID-0C090447, comment: AcceptSecurityContext error, data " + data + ", v3839"
		err := c.judge(&ldap.Error{ResultCode: ldap.LDAPResultInvalidCredentials, Err: errors.New(text)})
		if isRefused(err) != refused {
			t.Errorf("data %q: %v", data, err)
		}
		if !strings.Contains(err.Error(), strings.ToLower(data)) {
			t.Errorf("data %q isn't named in %q", data, err)
		}
	}
	for _, text := range []string{"", "whatever a server says"} {
		if err := c.judge(&ldap.Error{ResultCode: ldap.LDAPResultInvalidCredentials, Err: errors.New(text)}); !isRefused(err) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

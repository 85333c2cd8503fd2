package login

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"mailcutover/routing"
)

// names says which mailbox a login's name means. It doesn't change.
type names struct {
	separator string            // of sub-addressing
	domains   map[string]string // suffix by canonical name of DOMAIN\user
	masters   string            // characters of names that are refused
	key       []byte            // for what a name that isn't known is called in logs
}

func newNames(o *Options) (*names, error) {
	n := &names{separator: o.Separator, masters: o.MasterSeparators, domains: make(map[string]string), key: make([]byte, 16)}
	rand.Read(n.key)
	for _, d := range o.Domains {
		name, err := routing.ParseLogin(d.Name)
		if err != nil {
			return nil, fmt.Errorf("domain %q: %w", d.Name, err)
		}
		if _, twice := n.domains[string(name)]; twice {
			return nil, fmt.Errorf("domain %q: is there twice", d.Name)
		}
		n.domains[string(name)] = d.Suffix
	}
	return n, nil
}

// claim is what a client says it is, in canonical form.
type claim struct {
	name      routing.Login
	authorize routing.Login // empty: name
}

// errMaster and the others are why a name is refused.
var (
	errMaster   = errors.New("a name with a master user's separator")
	errNoPlace  = errors.New("the user has no place on the platform of the other mailbox")
	errNoShared = errors.New("the platform's endpoint has no logins for another's mailbox")
)

// parse returns the canonical form of an attempt's names. The error says what is wrong without
// the names, which may be passwords in the wrong field.
func (n *names) parse(a *Attempt) (claim, error) {
	var c claim
	for _, part := range []struct {
		from string
		to   *routing.Login
	}{{a.Name, &c.name}, {a.Authorize, &c.authorize}} {
		if part.from == "" && part.to == &c.authorize {
			continue
		}
		if strings.ContainsAny(part.from, n.masters) {
			return claim{}, errMaster
		}
		l, err := routing.ParseLogin(part.from)
		if err != nil {
			return claim{}, errors.New("no login name: empty, too long, not UTF-8, or with a blank at an end or a control character")
		}
		*part.to = l
	}
	if c.authorize == c.name {
		c.authorize = ""
	}
	return c, nil
}

// unknown is what a name that the table doesn't know is called in logs: it may be a password.
// The same name is called the same until the next start.
func (n *names) unknown(name string) string {
	h := hmac.New(sha256.New, n.key)
	h.Write([]byte(name))
	return "unknown-" + hex.EncodeToString(h.Sum(nil)[:6])
}

// identity is whom a claim means.
type identity struct {
	d routing.Decision // of the mailbox

	// login is what the mailbox's platform is told; shared is the other mailbox's name there, if
	// login has access to it.
	login, shared string

	user  routing.MailboxID // whose credentials they are
	known bool              // the table knows who logs in
	err   error             // why there is no platform to go to, where that isn't the decision's
}

// find says whom a claim means, by one state of the table.
func (n *names) find(s *routing.State, c claim) identity {
	if c.authorize != "" {
		user := n.resolve(s, c.name)
		if user.Reason == routing.ReasonNoSuchName {
			return identity{d: user}
		}
		return n.delegate(s, user, n.resolve(s, c.authorize))
	}
	own := n.resolve(s, c.name)
	if own.Reason != routing.ReasonNoSuchName || s.Taken(c.name) {
		return identity{d: own, login: own.Login, user: own.Mailbox, known: own.Agency != ""}
	}
	user, shared, domain, ok := n.split(c.name)
	if !ok {
		return identity{d: own}
	}
	to := n.other(s, shared)
	if to.Reason == routing.ReasonNoSuchName && domain != "" && !s.Taken(shared) {
		to = n.other(s, domain+`\`+shared)
	}
	return n.delegate(s, n.resolve(s, user), to)
}

// other decides for the name of another's mailbox. Who writes it in a platform's form may write
// the platform's name for that mailbox, which is no login by itself.
func (n *names) other(s *routing.State, name routing.Login) routing.Decision {
	if d := n.resolve(s, name); d.Reason != routing.ReasonNoSuchName {
		return d
	}
	return s.DecidePlatformLogin(name)
}

// resolve decides for a name that stands for one mailbox: as the table lists it, without the
// detail of a sub-address, or as DOMAIN\user by the configured domains.
func (n *names) resolve(s *routing.State, name routing.Login) routing.Decision {
	d := s.DecideLoginDetail(name, n.separator)
	if d.Reason != routing.ReasonNoSuchName {
		return d
	}
	domain, user, ok := strings.Cut(string(name), `\`)
	suffix, known := n.domains[domain]
	if !ok || !known || user == "" || strings.ContainsAny(user, `\@`) || s.Taken(name) {
		return d
	}
	if suffix != "" {
		user += "@" + suffix
	}
	l, err := routing.ParseLogin(user)
	if err != nil {
		return d
	}
	return s.DecideLoginDetail(l, n.separator)
}

// split takes apart user/mailbox and DOMAIN\user\mailbox.
func (n *names) split(name routing.Login) (user, shared, domain routing.Login, ok bool) {
	left, right, cut := strings.Cut(string(name), "/")
	switch {
	case cut && !strings.Contains(right, "/"):
	case !cut && strings.Count(left, `\`) == 2:
		i := strings.LastIndexByte(left, '\\')
		left, right = left[:i], left[i+1:]
	default:
		return "", "", "", false
	}
	user, errUser := routing.ParseLogin(left)
	shared, errShared := routing.ParseLogin(right)
	if errUser != nil || errShared != nil {
		return "", "", "", false
	}
	if d, _, ok := strings.Cut(left, `\`); ok {
		domain = routing.Login(d)
	}
	return user, shared, domain, true
}

// delegate is for a user who logs in for another mailbox, if it is one. The mailbox decides;
// the user has to be known, and to have a name on that platform.
func (n *names) delegate(s *routing.State, user, to routing.Decision) identity {
	switch {
	case user.Agency == "":
		return identity{d: user} // not known, claimed by two, or not to be said
	case to.Agency == "":
		return identity{d: to}
	case user.Agency == to.Agency && user.Mailbox == to.Mailbox:
		return identity{d: to, login: to.Login, user: user.Mailbox, known: true}
	}
	login, ok := s.LoginAt(user.Agency, user.Mailbox, to.Platform)
	if !ok {
		return identity{d: routing.Decision{Reason: routing.ReasonNoSuchName}, err: errNoPlace}
	}
	return identity{d: to, login: login, shared: to.Login, user: user.Mailbox, known: true}
}

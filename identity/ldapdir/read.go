package ldapdir

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

// Read implements directory.Directory. It holds one page at a time.
func (c *Client) Read(ctx context.Context, each func(*directory.Object) error) (directory.Snapshot, error) {
	snapshot := directory.Snapshot{Directory: c.o.Name, Began: c.now()}
	conn, err := c.connect(ctx, asking)
	if err != nil {
		return snapshot, fmt.Errorf("read directory: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	snapshot.Server = conn.server
	var sum digest
	var cookie []byte
	for {
		// A request can't be used twice: the library changes its controls.
		paging := ldap.NewControlPaging(uint32(c.o.Page))
		paging.SetCookie(cookie)
		result, err := conn.Search(c.request(c.o.Base, ldap.ScopeWholeSubtree, c.o.Map.Filter, paging))
		if err == nil {
			err = ctx.Err() // the library may return what it had when it was cut
		}
		if err == nil {
			err = elsewhere(result)
		}
		if err != nil {
			c.failedServer(conn.server, err)
			return snapshot, fmt.Errorf("read directory %s from %s, after %d objects: %w: %w", c.o.Name, conn.server, snapshot.Objects, directory.ErrIncomplete, err)
		}
		for _, e := range result.Entries {
			if err := c.ranges(conn, e); err != nil {
				return snapshot, fmt.Errorf("read directory %s from %s, %s: %w: %w", c.o.Name, conn.server, e.DN, directory.ErrIncomplete, err)
			}
			o := c.object(e)
			if err := sum.add(o); err != nil {
				return snapshot, err
			}
			snapshot.Objects++
			if err := each(o); err != nil {
				return snapshot, err
			}
		}
		answer, ok := ldap.FindControl(result.Controls, ldap.ControlTypePaging).(*ldap.ControlPaging)
		switch {
		case !ok && len(result.Entries) == c.o.Page:
			// A server that doesn't page answers with everything, or with what fits.
			return snapshot, fmt.Errorf("read directory %s from %s: %w: it doesn't page, and may have more than %d objects", c.o.Name, conn.server, directory.ErrIncomplete, c.o.Page)
		case !ok || len(answer.Cookie) == 0:
			snapshot.Ended, snapshot.Digest = c.now(), sum.sum()
			return snapshot, nil
		}
		cookie = answer.Cookie
	}
}

// without are the parts of a forest to which every domain controller refers who reads its whole
// domain: there are no mailboxes in them.
var without = [...]string{"dc=domaindnszones,", "dc=forestdnszones,", "cn=configuration,", "cn=schema,"}

// errElsewhere is for an answer that leaves a part of the directory out.
var errElsewhere = errors.New("the server refers to another one for a part of what is below the base: ask one that has all of it, such as a Global Catalog, or set a base without that part")

// elsewhere returns an error if a server has not looked through all that is below the base, though it
// says that all is well (RFC 4511 section 4.5.3): nobody knows what is in the rest.
func elsewhere(r *ldap.SearchResult) error {
	for _, ref := range r.Referrals {
		u, err := url.Parse(ref)
		name := ""
		if err == nil {
			name = lower(strings.TrimPrefix(u.Path, "/"))
		}
		if !slices.ContainsFunc(without[:], func(part string) bool { return strings.HasPrefix(name, part) }) {
			return fmt.Errorf("%w: %s", errElsewhere, ref)
		}
	}
	return nil
}

// request returns a search for everything that the map needs.
func (c *Client) request(base string, scope int, filter string, controls ...ldap.Control) *ldap.SearchRequest {
	if filter == "" {
		filter = "(objectClass=*)"
	}
	return ldap.NewSearchRequest(base, scope, ldap.NeverDerefAliases, 0, int(c.o.Timeout.Seconds()), false, filter, c.o.Map.attributes(c.o.Extra), controls)
}

// ranges reads the rest of the attributes of which Active Directory has sent a part only
// (MS-ADTS section 3.1.1.3.1.3.3).
func (c *Client) ranges(conn *connection, e *ldap.Entry) error {
	for i := 0; i < len(e.Attributes); i++ {
		a := e.Attributes[i]
		name, option, ok := strings.Cut(a.Name, ";range=")
		if !ok {
			continue
		}
		values, raw := a.Values, a.ByteValues
		for !strings.HasSuffix(option, "-*") {
			_, last, ok := strings.Cut(option, "-")
			n, err := strconv.Atoi(last)
			if !ok || err != nil {
				return fmt.Errorf("attribute %s: range %q", name, option)
			}
			more := fmt.Sprintf("%s;range=%d-*", name, n+1)
			result, err := conn.Search(ldap.NewSearchRequest(e.DN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, int(c.o.Timeout.Seconds()), false, "(objectClass=*)", []string{more}, nil))
			if err != nil {
				return fmt.Errorf("attribute %s: %w", more, err)
			}
			next := nextRange(result, name)
			if next == nil {
				return fmt.Errorf("attribute %s: the server doesn't have it any more", more)
			}
			_, option, _ = strings.Cut(next.Name, ";range=")
			values, raw = append(values, next.Values...), append(raw, next.ByteValues...)
		}
		e.Attributes[i] = &ldap.EntryAttribute{Name: name, Values: values, ByteValues: raw}
	}
	return nil
}

// nextRange returns the part of an attribute that a search brought.
func nextRange(r *ldap.SearchResult, name string) *ldap.EntryAttribute {
	if len(r.Entries) != 1 {
		return nil
	}
	for _, a := range r.Entries[0].Attributes {
		if base, _, ok := strings.Cut(a.Name, ";range="); ok && strings.EqualFold(base, name) && len(a.Values) > 0 {
			return a
		}
	}
	return nil
}

// Find implements directory.Directory.
func (c *Client) Find(ctx context.Context, q directory.Query) ([]directory.Object, error) {
	base, scope, filter := c.o.Base, ldap.ScopeWholeSubtree, ""
	if q.DN != "" {
		base, scope = q.DN, ldap.ScopeBaseObject
	} else {
		var err error
		if filter, err = c.filter(&q); err != nil {
			return nil, fmt.Errorf("ask directory %s: %w", c.o.Name, err)
		}
	}
	var objects []directory.Object
	err := c.on(ctx, asking, func(conn *connection) (err error) {
		objects, err = c.findAll(ctx, conn, c.request(base, scope, filter))
		return err
	})
	return objects, err
}

// on calls f with a connection. It is kept if f has no error, and else closed. One that was kept
// may have been closed meanwhile, so f is called again with a new one then.
func (c *Client) on(ctx context.Context, of purpose, f func(*connection) error) error {
	for {
		conn, err := c.take(ctx, of)
		if err != nil {
			return fmt.Errorf("ask directory: %w", err)
		}
		fresh := conn.used.IsZero()
		if err = f(conn); err == nil {
			c.give(conn)
			return nil
		}
		_ = conn.Close()
		if fresh || ctx.Err() != nil {
			return fmt.Errorf("ask directory %s at %s: %w: %w", c.o.Name, conn.server, ErrUnavailable, err)
		}
	}
}

// findAll is find where it counts that there is nothing else.
func (c *Client) findAll(ctx context.Context, conn *connection, request *ldap.SearchRequest) ([]directory.Object, error) {
	objects, unseen, err := c.find(ctx, conn, request)
	if err == nil {
		err = unseen
	}
	if err != nil {
		return nil, err
	}
	return objects, nil
}

// find returns what a search brings; unseen is why there may be more.
func (c *Client) find(ctx context.Context, conn *connection, request *ldap.SearchRequest) (objects []directory.Object, unseen, err error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	result, err := conn.Search(request)
	if !stop() {
		return nil, nil, context.Cause(ctx) // it may have been cut: nothing is known
	}
	if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) && request.Scope == ldap.ScopeBaseObject {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	objects = make([]directory.Object, 0, len(result.Entries))
	for _, e := range result.Entries {
		if err := c.ranges(conn, e); err != nil {
			return nil, nil, err
		}
		objects = append(objects, *c.object(e))
	}
	return objects, elsewhere(result), nil
}

// errQuery is for a query that asks by nothing, or by what this directory doesn't have.
var errQuery = errors.New("it can't be asked by that")

// filter returns the filter of a query (RFC 4515), whatever characters stand in it.
func (c *Client) filter(q *directory.Query) (string, error) {
	m := &c.o.Map
	var terms []string
	equal := func(attribute, value string) {
		if attribute != "" {
			terms = append(terms, "("+attribute+"="+ldap.EscapeFilter(value)+")")
		}
	}
	switch {
	case q.Address != "":
		equal(m.Mail, string(q.Address))
		for _, a := range m.Aliases {
			equal(a, string(q.Address))
			equal(a, "smtp:"+string(q.Address))
		}
	case !q.ID.IsZero():
		switch m.IDForm {
		case IDBinary:
			equal(m.ID, string(q.ID[:]))
		case IDPlain:
			equal(m.ID, fmt.Sprintf("%x-%x-%x-%x-%x", q.ID[:4], q.ID[4:6], q.ID[6:8], q.ID[8:10], q.ID[10:]))
		default:
			equal(m.ID, q.ID.String())
		}
	case q.Login != "":
		name := q.Login
		if i := strings.LastIndexByte(name, '\\'); i >= 0 {
			name = name[i+1:]
		}
		equal(m.UPN, name)
		equal(m.Account, name)
	case q.X500 != "":
		equal(m.LegacyDN, q.X500)
		for _, a := range m.Aliases {
			equal(a, "x500:"+q.X500)
		}
	}
	switch len(terms) {
	case 0:
		return "", errQuery
	case 1:
		return terms[0], nil
	}
	return "(|" + strings.Join(terms, "") + ")", nil
}

// digest is a sum of hashes, so that the order of what it is made of doesn't count.
type digest [4]uint64

func (d *digest) add(o *directory.Object) error {
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("object %s: %w", o.DN, err)
	}
	h := sha256.Sum256(text)
	var carry uint64
	for i := range d {
		d[i], carry = bits.Add64(d[i], binary.LittleEndian.Uint64(h[8*i:]), carry)
	}
	return nil
}

func (d *digest) sum() (out routing.Digest) {
	for i := range d {
		binary.LittleEndian.PutUint64(out[8*i:], d[i])
	}
	return out
}

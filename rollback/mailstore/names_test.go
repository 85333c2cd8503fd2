package mailstore

import (
	"testing"

	"github.com/emersion/go-imap/v2"
)

// Names are the same here whatever the platform's delimiter and prefix, and lead back to the
// same folder.
func TestNames(t *testing.T) {
	courier := &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Prefix: "INBOX.", Delim: '.'}}, Shared: []imap.NamespaceDescriptor{{Prefix: "shared.", Delim: '.'}}}
	dots := &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: '.'}}, Other: []imap.NamespaceDescriptor{{Prefix: "user.", Delim: '.'}}}
	slashes := &imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Delim: '/'}}}
	for _, c := range []struct {
		spaces         *imap.NamespaceData
		platform, name string // empty name: another user's
	}{
		{slashes, "Inbox", "INBOX"},
		{slashes, "Inbox/A", "INBOX/A"},
		{slashes, "Größe/Maß", "Größe/Maß"},
		{dots, "A.B.C", "A/B/C"},
		{dots, "A/B.C", "A%2FB/C"},
		{dots, "user.otto.INBOX", ""},
		{dots, "user", ""},
		{courier, "INBOX", "INBOX"},
		{courier, "INBOX.Sent", "Sent"},
		{courier, "shared.team", ""},
		{nil, "A", "A"},
	} {
		n := newNames(c.spaces)
		name, own := n.listed(c.platform)
		if own != (c.name != "") || own && name != c.name {
			t.Errorf("%q is %q (own %v), want %q", c.platform, name, own, c.name)
			continue
		}
		if own && n.told(name) != c.platform {
			t.Errorf("%q leads to %q, want %q", name, n.told(name), c.platform)
		}
	}
}

// A folder that is made gets a name that the platform can have, below the one that is there.
func TestNamesOfNewFolders(t *testing.T) {
	for _, c := range []struct {
		prefix     string
		delim      rune
		name, told string
	}{
		{"", '/', "Co. KG/2026", "Co. KG/2026"},
		{"", '.', "Co. KG/2026", "Co_ KG.2026"},
		{"INBOX.", '.', "A/B", "INBOX.A.B"},
		{"", '/', "A%2FB/C", "A_B/C"},
		{"", '.', "100%/*", "100_._"},
		{"INBOX.", '.', "INBOX", "INBOX"},
		{"INBOX.", '.', "Sent/2026", "INBOX.Gesendet.2026"},
	} {
		n := newNames(&imap.NamespaceData{Personal: []imap.NamespaceDescriptor{{Prefix: c.prefix, Delim: c.delim}}})
		n.platform["Sent"] = "INBOX.Gesendet"
		if got := n.told(c.name); got != c.told {
			t.Errorf("%q is told as %q, want %q", c.name, got, c.told)
		}
	}
}

func TestAlike(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"Co. KG", "co_ kg", true}, {"A%2FB", "A_B", true}, {"Größe", "Gro\u0308ße", true}, {"A/B", "A_B", false}, {"A", "B", false},
	} {
		if Alike(c.a, c.b) != c.want {
			t.Errorf("%q and %q: want %v", c.a, c.b, c.want)
		}
	}
}

// A role goes by attribute first, then by name, to one folder.
func TestRoles(t *testing.T) {
	for name, c := range map[string]struct {
		folders []string
		attrs   map[string]imap.MailboxAttr
		extra   map[Role][]string
		want    map[string]Role
	}{
		"German":          {folders: []string{"INBOX", "Gesendete Elemente", "Entwürfe", "Gelöschte Elemente", "Junk-E-Mail", "Archiv"}, want: map[string]Role{"INBOX": Inbox, "Gesendete Elemente": Sent, "Entwürfe": Drafts, "Gelöschte Elemente": Trash, "Junk-E-Mail": Junk, "Archiv": Archive}},
		"English":         {folders: []string{"INBOX", "Sent Items", "Drafts", "Deleted Items", "Junk Email"}, want: map[string]Role{"INBOX": Inbox, "Sent Items": Sent, "Drafts": Drafts, "Deleted Items": Trash, "Junk Email": Junk}},
		"attribute first": {folders: []string{"Sent", "Raus"}, attrs: map[string]imap.MailboxAttr{"Raus": imap.MailboxAttrSent}, want: map[string]Role{"Raus": Sent}},
		"one only":        {folders: []string{"Sent Items", "Sent", "Gesendet"}, want: map[string]Role{"Sent": Sent}},
		"below INBOX":     {folders: []string{"INBOX/Papierkorb"}, want: map[string]Role{"INBOX/Papierkorb": Trash}},
		"not deeper":      {folders: []string{"Projekt/Archiv"}, want: map[string]Role{}},
		"by setting":      {folders: []string{"Altablage", "Archiv"}, extra: map[Role][]string{Archive: {"Altablage"}}, want: map[string]Role{"Altablage": Archive}},
		"decomposed":      {folders: []string{"ENTWU\u0308RFE"}, want: map[string]Role{"ENTWU\u0308RFE": Drafts}},
	} {
		t.Run(name, func(t *testing.T) {
			var folders []Folder
			var attrs [][]imap.MailboxAttr
			for _, f := range c.folders {
				folders, attrs = append(folders, Folder{Name: f}), append(attrs, []imap.MailboxAttr{c.attrs[f]})
			}
			assignRoles(folders, attrs, c.extra)
			for _, f := range folders {
				if f.Role != c.want[f.Name] {
					t.Errorf("%q is %v, want %v", f.Name, f.Role, c.want[f.Name])
				}
			}
		})
	}
	for r := Sent; r < numRoles; r++ {
		if got, ok := ParseRole(r.String()); !ok || got != r || len(knownNames[r]) == 0 {
			t.Errorf("%v: parsed %v, with the names %q", r, got, knownNames[r])
		}
	}
}

package check

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/routing"
)

// What somebody would try, or do by mistake, to give one person's mail to another: none of it
// comes through as a file, and what is only written in another way does.
func TestWrongPairsAreRefused(t *testing.T) {
	id := func(n byte) routing.MailboxID {
		return routing.MailboxID{n, 0x2a, 0x1f, 0x6b, 0x4e, 0x3c, 0x5a, 0x4f, 0x8b, 0x6c, 0x7d, 0x8e, 0x9f, 0xa0, 0xb1, 0xc2}
	}
	anna, bert, carl, team := id(1), id(2), id(3), id(4)
	// The bytes of anna's id, in which somebody else's is written in AD's form.
	twin := routing.MailboxID{anna[3], anna[2], anna[1], anna[0], anna[5], anna[4], anna[7], anna[6], anna[8], anna[9], anna[10], anna[11], anna[12], anna[13], anna[14], anna[15]}
	facts := NewFacts("ad", time.Now())
	for _, o := range []struct {
		id        routing.MailboxID
		agency    routing.AgencyID
		kind      directory.Kind
		account   string
		addresses []routing.Address
	}{
		{anna, "health", directory.KindUser, "anna", []routing.Address{"anna@health.example", "a.berg@health.example"}},
		{bert, "health", directory.KindUser, "bert", []routing.Address{"bert@health.example", "anna+hr@health.example", "shared@health.example"}},
		{carl, "tax", directory.KindUser, "carl", []routing.Address{"carl@tax.example", "carl@health.example"}},
		{team, "health", directory.KindGroup, "", []routing.Address{"team@health.example", "shared@health.example"}},
		{twin, "health", directory.KindUser, "twin", []routing.Address{"twin@health.example"}},
		{id(6), "health", directory.KindUser, "dora", []routing.Address{"dora@health.example"}},
		{id(7), "tax", directory.KindUser, "dora", []routing.Address{"dora@tax.example"}}, // of another domain
	} {
		facts.Add(&directory.Object{ID: o.id, Kind: o.kind, Enabled: true, Account: o.account, Addresses: o.addresses}, o.agency)
	}
	row := func(address string, id fmt.Stringer) string {
		return "address;objectGUID\n" + address + ";" + id.String() + "\n"
	}
	accounts := func(account string, id fmt.Stringer) string {
		return "Accountname;objectGUID\n" + account + ";" + id.String() + "\n"
	}
	raw := func(id routing.MailboxID) string { return fmt.Sprintf("%x", id[:]) }
	for name, c := range map[string]struct {
		file  string
		clean bool
		want  string // in a problem, or as a verdict
	}{
		"as it is":                     {file: row("anna@health.example", anna), clean: true},
		"in capitals":                  {file: row("ANNA@HEALTH.EXAMPLE", anna), clean: true},
		"by an alias":                  {file: row("a.berg@health.example", anna), clean: true},
		"by account":                   {file: accounts("anna", anna), clean: true},
		"by account, with its domain":  {file: accounts(`AMT\ANNA`, anna), clean: true},
		"with blanks that Excel keeps": {file: row(" anna@health.example\u00a0", anna), clean: true},

		"another's address":             {file: row("bert@health.example", anna), want: "other-mailbox"},
		"another's alias":               {file: row("anna+hr@health.example", anna), want: "other-mailbox"},
		"a detail that nobody has":      {file: row("anna+x@health.example", anna), want: "no-address"},
		"aliases exchanged":             {file: "address;objectGUID\na.berg@health.example;" + bert.String() + "\nanna+hr@health.example;" + anna.String() + "\n", want: "other-mailbox"},
		"another's account":             {file: accounts("bert", anna), want: "other-account"},
		"right address, wrong account":  {file: "address;Accountname;objectGUID\nanna@health.example;bert;" + anna.String() + "\n", want: "other-account"},
		"an account of two domains":     {file: accounts("dora", id(6)), want: "twice"},
		"an account, padded":            {file: accounts("anna ", bert), want: "other-account"},
		"a number for an account":       {file: accounts("1,00E+05", anna), want: "no-account"},
		"another agency's mailbox":      {file: row("carl@tax.example", carl), want: "other-agency"},
		"its address here":              {file: row("carl@health.example", carl), want: "other-agency"},
		"a group":                       {file: row("team@health.example", team), want: "not-mailbox"},
		"an address of two":             {file: row("shared@health.example", bert), want: "twice"},
		"another tld":                   {file: row("anna@health.exampel", anna), want: "no-address"},
		"a Cyrillic letter":             {file: row("аnna@health.example", anna), want: "no-address"},
		"wholly another alphabet":       {file: row("анна@health.example", anna), want: "no-address"},
		"fullwidth letters":             {file: row("ａｎｎａ@health.example", anna), want: "no-address"},
		"a dotless i in the domain":     {file: row("anna@health.examp1e", anna), want: "no-address"},
		"a zero-width space":            {file: row("an\u200bna@health.example", anna), want: ""},
		"a soft hyphen":                 {file: row("an\u00adna@health.example", anna), want: ""},
		"writing from right to left":    {file: row("\u202eanna@health.example", anna), want: ""},
		"a byte order mark in a cell":   {file: row("\ufeffanna@health.example", anna), want: ""},
		"NUL":                           {file: row("anna@health.example\x00", anna), want: "NUL"},
		"NUL and what follows":          {file: row("bert\x00anna@health.example", bert), want: "NUL"},
		"a line break in a cell":        {file: row("\"anna@health.example\nbert@health.example\"", anna), want: "line break"},
		"two addresses in a cell":       {file: row("anna@health.example,bert@health.example", anna), want: ""},
		"a name beside the address":     {file: row("Anna <anna@health.example>", anna), want: ""},
		"a quoted local part":           {file: row(`"""anna""@health.example"`, anna), clean: true},
		"a comment":                     {file: row("anna(bert)@health.example", anna), want: ""},
		"SMTP: before it":               {file: row("SMTP:anna@health.example", anna), want: ""},
		"a formula":                     {file: row("=B2", anna), want: "formula"},
		"a formula for Lotus":           {file: row("@SUM(A1)", anna), want: "formula"},
		"DDE":                           {file: row("+cmd|' /C calc'!A0", anna), want: "formula"},
		"a formula behind blanks":       {file: row("\t=A1", anna), want: "formula"},
		"id in the other byte order":    {file: row("anna@health.example", twin), want: "other-mailbox"},
		"id without hyphens":            {file: row("anna@health.example", stringer(raw(anna))), want: "two ways"},
		"both readings are somebody's":  {file: row("twin@health.example", stringer(raw(anna))), want: "two ways"},
		"id in base64, its own bytes":   {file: row("anna@health.example", stringer(base64.StdEncoding.EncodeToString(anna[:]))), clean: true},
		"id in base64, another's":       {file: row("anna@health.example", stringer(base64.StdEncoding.EncodeToString(twin[:]))), want: "other-mailbox"},
		"id cut by a cell's width":      {file: row("anna@health.example", stringer(anna.String()[:35])), want: ""},
		"id as a number":                {file: row("anna@health.example", stringer("1,2345E+31")), want: ""},
		"id of nobody":                  {file: row("anna@health.example", id(9)), want: "other-mailbox"},
		"id of zeros":                   {file: row("anna@health.example", stringer("00000000-0000-0000-0000-000000000000")), want: ""},
		"a column ExchangeGuid":         {file: strings.Replace(row("anna@health.example", anna), "objectGUID", "ExchangeGuid", 1), want: "isn't known"},
		"two columns of ids":            {file: "address;objectGUID;GUID\nanna@health.example;" + anna.String() + ";" + bert.String() + "\n", want: "one of this kind"},
		"two columns of addresses":      {file: "address;mail;objectGUID\nanna@health.example;bert@health.example;" + anna.String() + "\n", want: "one of this kind"},
		"a cell beside the table":       {file: row("anna@health.example", anna) + "bert@health.example;" + bert.String() + ";" + anna.String() + "\n", want: "without a name"},
		"the header again":              {file: row("anna@health.example", anna) + row("bert@health.example", bert), want: ""},
		"another list below":            {file: row("anna@health.example", anna) + "\ufeff" + row("bert@health.example", bert), want: ""},
		"a mailbox twice":               {file: row("anna@health.example", anna) + "a.berg@health.example;" + anna.String() + "\n", want: "already"},
		"an address twice, in two ways": {file: row("anna@health.example", anna) + "Anna@Health.Example;" + bert.String() + "\n", want: "already"},
		"a list of another agency":      {file: "address;objectGUID;agency\nanna@health.example;" + anna.String() + ";tax\n", want: "of another agency"},
		"an agency in capitals":         {file: "address;objectGUID;agency\nanna@health.example;" + anna.String() + ";HEALTH\n", want: ""},
		"line ends of an old Mac":       {file: strings.ReplaceAll(row("anna@health.example", bert), "\n", "\r"), want: ""},
		"commas and semicolons":         {file: "address,objectGUID\nanna@health.example;" + anna.String() + "\n", want: ""},
		"digests taken from elsewhere":  {file: "list;address;objectGUID;digest\nhealth-0001-aaaa;anna@health.example;" + anna.String() + ";" + strings.Repeat("0", 32) + "\n", want: "digest is wrong"},
		"digests cut off, list kept":    {file: "list;address;objectGUID\nhealth-0001-aaaa;anna@health.example;" + anna.String() + "\n", want: "belong together"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := list.NewKey([]byte("a key for tests, not secret"))
			if err != nil {
				t.Fatal(err)
			}
			l, err := list.Read([]byte(c.file), list.Options{Agency: "health", ID: "health-0001", Key: &key})
			said := fmt.Sprint(err)
			clean := false
			if err == nil {
				r := Check(Input{List: l, Source: facts})
				clean = r.Clean()
				for i := range r.Rows {
					said += " " + r.Rows[i].Code().String()
				}
			}
			if clean != c.clean || !strings.Contains(said, c.want) {
				t.Errorf("clean %v, said %q; want %v with %q", clean, said, c.clean, c.want)
			}
		})
	}
}

// stringer is text where an id is expected.
type stringer string

func (s stringer) String() string { return string(s) }

// Digests made with another key are nobody's: who replaces the key makes the lists again.
func TestDigestsOfAnotherKey(t *testing.T) {
	w := newWorld(rng(5), map[routing.AgencyID]int{"health": 5})
	old, err := list.NewKey([]byte("the key that was replaced"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := list.NewKey([]byte("the key that is in force"))
	if err != nil {
		t.Fatal(err)
	}
	lists, err := list.Generate(list.Order{Agency: "health", Key: old}, w.objects["health"])
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := lists[0].Write(&b); err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]*list.Key{"another": &key, "none": nil} {
		if _, err := list.Read([]byte(b.String()), list.Options{Agency: "health", Key: k}); err == nil {
			t.Errorf("key %s: taken", name)
		}
	}
	if _, err := list.Read([]byte(b.String()), list.Options{Agency: "health", Key: &old}); err != nil {
		t.Errorf("its own key: %v", err)
	}
}

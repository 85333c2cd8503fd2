package ldapdir

import (
	"fmt"

	"mailcutover/identity/directory"
)

// IDForm is how a directory writes an object's id.
type IDForm string

const (
	IDBinary IDForm = "binary" // 16 bytes as in AD's objectGUID
	IDPlain  IDForm = "plain"  // digits in the order of the bytes, as OpenLDAP's entryUUID
	IDAD     IDForm = "ad"     // AD's string form, as where AD's id is stored as a text
)

// Map says which attributes mean what. An empty name means that there is none.
type Map struct {
	ID      string // attribute of the directory id
	IDForm  IDForm
	Mail    string   // primary address
	Aliases []string // further addresses; with SMTP:, smtp: or X500: before them, as in proxyAddresses, or bare

	UPN, Account  string
	LegacyDN      string   // another X.500 name
	Target        string   // targetAddress
	Forward       string   // DN or address of where mail is forwarded
	Forwards      []string // addresses to which mail is forwarded, with SMTP: or smtp: before them or bare
	Redirect      string   // TRUE or 1: forwarded and delivered
	Control       string   // userAccountControl: bit 2 is a disabled account (MS-ADTS section 2.2.16)
	SambaFlags    string   // sambaAcctFlags: a D is a disabled account
	RecipientType string   // msExchRecipientTypeDetails
	Kind          string   // an attribute whose value is one of our words, for other directories
	Groups        string   // memberOf
	Members       []string

	Filter string // what is read at all (RFC 4515)
}

// Presets are the maps of known directories, by name.
func Presets() map[string]Map {
	return map[string]Map{
		"ad": {
			ID: "objectGUID", IDForm: IDBinary, Mail: "mail", Aliases: []string{"proxyAddresses"},
			UPN: "userPrincipalName", Account: "sAMAccountName", LegacyDN: "legacyExchangeDN", Target: "targetAddress",
			Forward: "altRecipient", Forwards: []string{"msExchGenericForwardingAddress"}, Redirect: "deliverAndRedirect", Control: "userAccountControl",
			RecipientType: "msExchRecipientTypeDetails", Groups: "memberOf", Members: []string{"member", "msExchDelegateListLink"},
			Filter: "(|(mail=*)(proxyAddresses=*))",
		},
		"ucs": {
			ID: "entryUUID", IDForm: IDPlain, Mail: "mailPrimaryAddress", Aliases: []string{"mailAlternativeAddress"},
			Forwards: []string{"mailForwardAddress"}, Redirect: "mailForwardCopyToSelf",
			Account: "uid", SambaFlags: "sambaAcctFlags", Groups: "memberOf", Members: []string{"uniqueMember"},
			Filter: "(|(mailPrimaryAddress=*)(mailAlternativeAddress=*))",
		},
		"openldap": {
			ID: "entryUUID", IDForm: IDPlain, Mail: "mail", Account: "uid", Members: []string{"member"},
			Filter: "(mail=*)",
		},
	}
}

// kindsOfExchange are the values of msExchRecipientTypeDetails, as Exchange's
// RecipientTypeDetails has them; those of remote mailboxes are of a hybrid.
var kindsOfExchange = map[string]directory.Kind{
	"1": directory.KindUser, "2": directory.KindUser, "4": directory.KindShared, "8": directory.KindUser,
	"16": directory.KindRoom, "32": directory.KindRoom, "64": directory.KindContact, "128": directory.KindUser,
	"256": directory.KindGroup, "512": directory.KindGroup, "1024": directory.KindGroup, "2048": directory.KindGroup,
	"4096": directory.KindFolder, "32768": directory.KindContact,
	"2147483648": directory.KindUser, "8589934592": directory.KindRoom, "17179869184": directory.KindRoom, "34359738368": directory.KindShared,
	"268435456": directory.KindGroup, "1099511627776": directory.KindGroup,
}

// kindOfClasses returns the kind of an object by its classes, where nothing else says it.
func kindOfClasses(classes []string) directory.Kind {
	for _, c := range classes {
		switch c = lower(c); c {
		case "group", "groupofnames", "univentiongroup", "posixgroup", "univentionmaillist":
			return directory.KindGroup
		case "contact":
			return directory.KindContact
		case "publicfolder":
			return directory.KindFolder
		}
	}
	for _, c := range classes {
		switch lower(c) {
		case "user", "person", "inetorgperson", "posixaccount", "univentionmail":
			return directory.KindUser
		}
	}
	return directory.KindUnknown
}

// check returns what is wrong with m; nil if nothing is.
func (m *Map) check() error {
	switch {
	case m.ID == "":
		return fmt.Errorf("attributes: id is empty: want the attribute that holds the directory id, such as objectGUID")
	case m.IDForm != IDBinary && m.IDForm != IDPlain && m.IDForm != IDAD:
		return fmt.Errorf("attributes: id form %q: want binary, plain or ad", m.IDForm)
	case m.Mail == "" && len(m.Aliases) == 0:
		return fmt.Errorf("attributes: mail and aliases are empty: want an attribute with addresses")
	}
	return nil
}

// attributes are all that are asked for.
func (m *Map) attributes(extra []string) []string {
	var out []string
	seen := map[string]bool{}
	add := func(names ...string) {
		for _, n := range names {
			if n != "" && !seen[lower(n)] {
				seen[lower(n)] = true
				out = append(out, n)
			}
		}
	}
	add("objectClass", m.ID, m.Mail)
	add(m.Aliases...)
	add(m.UPN, m.Account, m.LegacyDN, m.Target, m.Forward, m.Redirect, m.Control, m.SambaFlags, m.RecipientType, m.Kind, m.Groups)
	add(m.Members...)
	add(m.Forwards...)
	add(extra...)
	return out
}

package list

import (
	"errors"
	"fmt"
	"strings"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

// Options are what [Read] has to know besides the file.
type Options struct {
	Agency routing.AgencyID // that the list is said to be of
	ID     string           // of the list, if the file names none
	Source string           // the file's name, for people
	Key    *Key             // for rows with digests; nil: a list that has some is refused
}

// column is what a column of a file is.
type column uint8

const (
	columnNone column = iota
	columnAddress
	columnAccount
	columnID
	columnAgency
	columnList
	columnDigest
	columnRow // its number, which nobody needs
)

// headers are the names of columns, without case, blanks, hyphens and underscores. There is no
// ExchangeGuid and no msExchMailboxGuid among them: those are other ids than the directory's.
var headers = map[string]column{
	"address": columnAddress, "mailaddress": columnAddress, "mail": columnAddress, "email": columnAddress, "emailaddress": columnAddress,
	"adresse": columnAddress, "mailadresse": columnAddress, "emailadresse": columnAddress, "smtpadresse": columnAddress,
	"primarysmtpaddress": columnAddress, "smtpaddress": columnAddress, "mailprimaryaddress": columnAddress,
	"account": columnAccount, "accountname": columnAccount, "samaccountname": columnAccount, "anmeldename": columnAccount,
	"benutzername": columnAccount, "benutzer": columnAccount, "konto": columnAccount, "kontoname": columnAccount, "uid": columnAccount,
	"directoryid": columnID, "objectguid": columnID, "guid": columnID, "adid": columnID, "adguid": columnID, "verzeichnisid": columnID,
	"agency": columnAgency, "behörde": columnAgency, "behoerde": columnAgency, "dienststelle": columnAgency,
	"list": columnList, "liste": columnList,
	"digest": columnDigest, "prüfsumme": columnDigest, "pruefsumme": columnDigest,
	"row": columnRow, "nr": columnRow, "nr.": columnRow, "zeile": columnRow, "lfdnr": columnRow, "lfd.nr.": columnRow,
}

// separators are what people write between the words of a header.
var separators = strings.NewReplacer(" ", "", "-", "", "_", "", "\u00a0", "")

// fold returns a header's name as headers has it.
func fold(name string) string { return separators.Replace(strings.ToLower(name)) }

// Read reads a list. The error is a *Problems, or wraps [ErrFile] where the file is no table.
// With a *Problems the list is returned too, as far as it could be read, for those who want
// to know what else is wrong with it; it must not be used.
func Read(text []byte, o Options) (*List, error) {
	s, err := readSheet(text)
	if err != nil {
		return nil, fmt.Errorf("read list %s: %w", o.Source, err)
	}
	r := &reader{options: o, list: &List{ID: o.ID, Agency: o.Agency, Source: o.Source, Foreign: true}}
	for len(s.rows) > 0 && s.rows[0].empty() {
		s.rows = s.rows[1:]
	}
	if len(s.rows) == 0 {
		return nil, fmt.Errorf("read list %s: %w", o.Source, refused("it is empty", "sie ist leer"))
	}
	if !r.header(&s.rows[0]) {
		return nil, r.problems.err()
	}
	for i := range s.rows[1:] {
		if row := &s.rows[1+i]; !row.empty() {
			r.row(row)
		}
	}
	if len(r.list.Rows) == 0 && r.problems.Total == 0 {
		r.problems.add(0, "there is no row below the header", "unter der Kopfzeile steht keine Zeile")
	}
	r.twice()
	return r.list, r.problems.err()
}

type reader struct {
	options  Options
	columns  []column
	has      [columnRow + 1]bool
	list     *List
	problems Problems
}

// header reads the first row, and reports whether the rows below make sense.
func (r *reader) header(row *sheetRow) bool {
	names := [...]*string{columnAddress: &r.list.Headers.Address, columnAccount: &r.list.Headers.Account, columnID: &r.list.Headers.ID, columnAgency: &r.list.Headers.Agency}
	for _, c := range row.cells {
		kind, known := headers[fold(c.text)]
		switch {
		case c.text == "":
			r.columns = append(r.columns, columnNone)
			continue
		case !known:
			r.problems.add(row.line, "column %q isn't known: want address, account, directory_id, agency, list, digest, row; leave others out",
				"die Spalte %q ist unbekannt: erlaubt sind Adresse, Konto, Verzeichnis-ID, Dienststelle, Liste, Prüfsumme, Zeile; andere bitte weglassen", c.text)
		case r.has[kind]:
			r.problems.add(row.line, "column %q: there is one of this kind already", "Spalte %q: eine dieser Art gibt es schon", c.text)
		}
		r.has[kind] = true
		r.columns = append(r.columns, kind)
		if int(kind) < len(names) && names[kind] != nil {
			*names[kind] = c.text
		}
	}
	if !r.has[columnID] {
		r.problems.add(row.line, "there is no column of directory ids: want directory_id or objectGUID", "es fehlt die Spalte mit den Verzeichnis-IDs: directory_id oder objectGUID")
	}
	if !r.has[columnAddress] && !r.has[columnAccount] {
		r.problems.add(row.line, "there is no column of addresses: want address", "es fehlt die Spalte mit den Adressen: E-Mail-Adresse")
	}
	if r.has[columnDigest] != r.has[columnList] {
		r.problems.add(row.line, "the columns list and digest belong together: a generated list has both, another one neither",
			"die Spalten list und digest gehören zusammen: eine erzeugte Liste hat beide, eine andere keine")
	}
	if r.has[columnDigest] && r.options.Key == nil {
		r.problems.add(row.line, "the list has digests, and this node has no key to check them: set identity.key_file",
			"die Liste hat Prüfsummen, und dieser Knoten hat keinen Schlüssel dafür: identity.key_file setzen")
	}
	r.list.Foreign = !r.has[columnDigest]
	return r.problems.Total == 0
}

// row reads a row below the header.
func (r *reader) row(row *sheetRow) {
	out := Row{Line: row.line, Agency: r.options.Agency}
	before := r.problems.Total
	bad := func(c cell, english, german string, args ...any) {
		r.problems.add(row.line, "%q: "+english, "%q: "+german, append([]any{c.text}, args...)...)
	}
	var seen [columnRow + 1]bool
	list := ""
	for i, c := range row.cells {
		kind := columnNone
		if i < len(r.columns) {
			kind = r.columns[i]
		}
		switch {
		case c.formula:
			bad(c, "a formula, or what looks like one: want plain text", "eine Formel, oder was so aussieht: reiner Text ist nötig")
			continue
		case c.text == "":
			continue
		case strings.ContainsAny(c.text, "\r\n"):
			bad(c, "a line break within a cell", "ein Zeilenumbruch in einer Zelle")
			continue
		}
		seen[kind] = true
		var err error
		switch kind {
		case columnNone:
			bad(c, "a cell in a column without a name", "eine Zelle in einer Spalte ohne Namen")
		case columnAddress:
			out.Address, err = routing.ParseAddress(c.text)
		case columnAccount:
			out.Account, err = account(c.text)
		case columnID:
			out.ID, err = directory.ParseID(c.text)
		case columnAgency:
			out.Agency, err = routing.ParseAgencyID(c.text)
			if err == nil && r.options.Agency != "" && out.Agency != r.options.Agency {
				bad(c, "the row is of another agency than the list, %s: one list is of one agency",
					"die Zeile gehört zu einer anderen Dienststelle als die Liste, %s: eine Liste gehört zu einer Dienststelle", r.options.Agency)
			}
		case columnDigest:
			out.MAC, err = ParseMAC(c.text)
		case columnList:
			list = c.text
		}
		if err != nil {
			r.problems.note(Problem{Line: row.line, Text: fmt.Sprintf("%q: %v", c.text, err), German: fmt.Sprintf("%q: %s", c.text, german(kind, err))})
		}
	}
	for _, needed := range [...]struct {
		kind column
		name string
		de   string
	}{
		{columnAddress, "address", "die Adresse"}, {columnAccount, "account", "das Konto"}, {columnID, "directory id", "die Verzeichnis-ID"},
		{columnAgency, "agency", "die Dienststelle"}, {columnList, "list", "die Liste"}, {columnDigest, "digest", "die Prüfsumme"},
	} {
		if r.has[needed.kind] && !seen[needed.kind] && r.problems.Total == before {
			r.problems.note(Problem{Line: row.line, Text: "the " + needed.name + " is missing", German: needed.de + " fehlt"})
		}
	}
	if r.has[columnList] && list != "" {
		r.named(row.line, list)
	}
	if r.problems.Total == before && r.has[columnDigest] && !r.options.Key.Holds(list, &out) {
		r.problems.add(row.line, "the digest is wrong: address, directory id, agency or list of this row is not what was generated",
			"die Prüfsumme ist falsch: Adresse, Verzeichnis-ID, Dienststelle oder Liste dieser Zeile sind nicht, was erzeugt wurde")
	}
	// A row that is wrong in one cell is kept for what the others say about the file.
	if !out.ID.IsZero() && (out.Address != "" || out.Account != "") {
		r.list.Rows = append(r.list.Rows, out)
	}
}

// named notes the id of the list that a row says it is of.
func (r *reader) named(line int, id string) {
	switch {
	case len(r.list.Rows) == 0 && !r.list.Foreign:
		r.list.ID = id
	case id != r.list.ID:
		r.problems.add(line, "%q: a row of another list than %q", "%q: eine Zeile einer anderen Liste als %q", id, r.list.ID)
	}
}

// german says in German what is wrong with a cell.
func german(kind column, err error) string {
	var two *directory.AmbiguousID
	switch {
	case errors.As(err, &two):
		return fmt.Sprintf("die Verzeichnis-ID lässt zwei Lesarten zu: %s, wenn es die Bytes sind, die LDAP liefert, und %s, wenn es die Form des Active Directory ohne Bindestriche ist; bitte die gemeinte ausschreiben", two.Bytes, two.Form)
	case kind == columnAddress:
		return "keine Adresse; gebraucht wird eine wie name@dienststelle.example"
	case kind == columnAccount:
		return "kein Kontoname"
	case kind == columnID:
		return "keine Verzeichnis-ID; gebraucht wird eine wie 6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2"
	case kind == columnAgency:
		return "keine Dienststelle; gebraucht wird ihre Kennung aus der Tabelle"
	}
	return "keine Prüfsumme; gebraucht werden 32 hexadezimale Ziffern"
}

// account checks a cell that names an account.
func account(s string) (string, error) {
	if _, err := routing.ParseLogin(s); err != nil {
		return "", err
	}
	return s, nil
}

// twice names what stands in two rows.
func (r *reader) twice() {
	addresses := make(map[routing.Address]int)
	accounts := make(map[string]int)
	ids := make(map[routing.MailboxID]int)
	for i := range r.list.Rows {
		row := &r.list.Rows[i]
		if first, ok := addresses[row.Address]; ok && row.Address != "" {
			r.problems.add(row.Line, "%q: the address is in line %d already", "%q: die Adresse steht schon in Zeile %d", row.Address, first)
		}
		if first, ok := ids[row.ID]; ok {
			r.problems.add(row.Line, "%q: the directory id is in line %d already", "%q: die Verzeichnis-ID steht schon in Zeile %d", row.ID, first)
		}
		key := strings.ToLower(row.Account)
		if first, ok := accounts[key]; ok && key != "" {
			r.problems.add(row.Line, "%q: the account is in line %d already", "%q: das Konto steht schon in Zeile %d", row.Account, first)
		}
		addresses[row.Address], ids[row.ID], accounts[key] = row.Line, row.Line, row.Line
	}
}

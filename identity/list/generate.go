package list

import (
	"crypto/rand"
	"encoding/csv"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

// Order says what lists are made of, besides the mailboxes.
type Order struct {
	Agency routing.AgencyID
	First  int // number of the first list, 1 at least
	Size   int // rows of a list; 0 is DefaultRows
	By     string
	Made   time.Time
	Key    Key
}

// Rows makes a row of each mailbox among the objects that the directory counts to an agency;
// what is no mailbox is left out. The error names each object without an id or an address: a
// list that is quietly without it would be called complete.
func Rows(agency routing.AgencyID, objects []*directory.Object) ([]Row, error) {
	rows := make([]Row, 0, len(objects))
	var bad Problems
	for _, object := range objects {
		if !object.Kind.Mailbox() {
			continue
		}
		if object.ID.IsZero() || object.Primary() == "" {
			bad.add(0, "%s has no directory id, or no address that can be one", "%s hat keine Verzeichnis-ID, oder keine Adresse, die eine sein kann", object.DN)
			continue
		}
		rows = append(rows, Row{Address: object.Primary(), ID: object.ID, Agency: agency})
	}
	if err := bad.err(); err != nil {
		return nil, fmt.Errorf("generate lists of %s: %w", agency, err)
	}
	return rows, nil
}

// Generate makes lists of the mailboxes among an agency's objects, as [Rows] and [Make] do.
func Generate(o Order, objects []*directory.Object) ([]*List, error) {
	rows, err := Rows(o.Agency, objects)
	if err != nil {
		return nil, err
	}
	return Make(o, rows)
}

// Make makes lists of rows, in the order of their addresses, so that the same mailboxes make the
// same rows again.
func Make(o Order, rows []Row) ([]*List, error) {
	size := o.Size
	if size == 0 {
		size = DefaultRows
	}
	if size < 1 || size > MaxRows {
		return nil, fmt.Errorf("generate lists of %s: %d rows a list: want 1 to %d", o.Agency, o.Size, MaxRows)
	}
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b Row) int { return strings.Compare(string(a.Address), string(b.Address)) })
	var lists []*List
	for part := range slices.Chunk(rows, size) {
		l := &List{Agency: o.Agency, Number: max(o.First, 1) + len(lists), Made: o.Made, By: o.By, Rows: slices.Clone(part)}
		l.ID = NewID(l.Agency, l.Number)
		for i := range l.Rows {
			l.Rows[i].MAC = o.Key.Row(l.ID, &l.Rows[i])
		}
		lists = append(lists, l)
	}
	return lists, nil
}

// NewID returns the id of a new list: the agency, the list's number, and 64 random bits in
// hexadecimal digits, so that no list that was ever generated is taken for another one. Of older
// lists there are ids with 16 bits, which are as good names as these.
func NewID(agency routing.AgencyID, number int) string {
	var random [8]byte
	rand.Read(random[:]) // never fails
	return fmt.Sprintf("%s-%04d-%s", agency, number, hex.EncodeToString(random[:]))
}

// generatedColumns are those of a generated list.
var generatedColumns = []string{"list", "row", "agency", "address", "directory_id", "digest"}

// Write writes l as CSV with semicolons, as spreadsheets want it where German is spoken. It is
// plain ASCII, so no program reads it in another way.
func (l *List) Write(w io.Writer) error {
	out := csv.NewWriter(w)
	out.Comma, out.UseCRLF = ';', true
	if err := out.Write(generatedColumns); err != nil {
		return fmt.Errorf("write list %s: %w", l.ID, err)
	}
	for i := range l.Rows {
		r := &l.Rows[i]
		if err := out.Write([]string{l.ID, strconv.Itoa(i + 1), string(r.Agency), string(r.Address), r.ID.String(), r.MAC.String()}); err != nil {
			return fmt.Errorf("write list %s: %w", l.ID, err)
		}
	}
	out.Flush()
	if err := out.Error(); err != nil {
		return fmt.Errorf("write list %s: %w", l.ID, err)
	}
	return nil
}

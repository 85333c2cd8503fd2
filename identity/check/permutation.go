package check

import (
	"cmp"
	"slices"
	"strings"

	"mailcutover/identity/list"
	"mailcutover/routing"
)

// Column is a column of a list.
type Column uint8

const (
	ColumnUnknown Column = iota
	ColumnAddress
	ColumnAccount
	ColumnID
)

// String returns the word used in CSV and JSON.
func (c Column) String() string {
	return [...]string{"unknown", "address", "account", "directory id"}[c]
}

// How is the way in which rows were mixed.
type How uint8

const (
	Shuffled   How = iota // in no order that is known
	Sorted                // one column was sorted without the others
	SortedDown            // the same, in descending order
	Rotated               // one column was moved up or down against the others
	Swapped               // cells of two rows were exchanged, once or a few times
)

// String returns the word used in CSV and JSON.
func (h How) String() string {
	return [...]string{"shuffled", "sorted", "sorted-down", "rotated", "swapped"}[h]
}

// Permutation is a set of rows that have the right cells in other rows: whoever looks at a
// column alone sees nothing wrong.
type Permutation struct {
	Column Column `json:"column"` // that is out of step with the others
	How    How    `json:"how"`
	By     int    `json:"by,omitempty"`    // rows, for Rotated: how far down the column was moved
	First  int    `json:"first"`           // line of the first such row
	Last   int    `json:"last"`            // and of the last
	Pairs  []Pair `json:"pairs,omitempty"` // all of them, in the list's order
}

// Pair is what a row of a permutation would do.
type Pair struct {
	Line  int               `json:"line"`
	Name  string            `json:"name"`  // address of the row; or its account, where that is out of step, or there is no address
	Owner routing.MailboxID `json:"owner"` // whose it is
	Given routing.MailboxID `json:"given"` // whom the row gives it to
	To    routing.Address   `json:"to"`    // that one's primary address: who would get the mail
}

// few is how many exchanges are told as such.
const few = 3

// permutations finds the rows that are right cells in other rows. The source's directory
// says what belongs together; without it, the newest earlier list.
func permutations(in *Input, earlier *pairs) []Permutation {
	rows := make([]cells, 0, len(in.List.Rows))
	for i := range in.List.Rows {
		rows = append(rows, in.cells(i, earlier))
	}
	odd := oddColumn(rows)
	return mixed(in, rows, odd)
}

// cells are whose the cells of a row are; zero where nobody knows.
type cells struct {
	row                  *list.Row
	address, account, id routing.MailboxID
}

func (in *Input) cells(i int, earlier *pairs) cells {
	row := &in.List.Rows[i]
	c := cells{row: row, id: row.ID}
	if in.Source == nil {
		if was, ok := earlier.ids[row.Address]; ok {
			c.address = was.id
		}
		return c
	}
	if f, n := in.Source.address(row.Address); n == foundOne {
		c.address = f.id
	}
	if row.Account != "" {
		if f, n := in.Source.account(row.Account); n == foundOne {
			c.account = f.id
		}
	}
	return c
}

// reference returns whose the row is by the columns other than odd.
func (c *cells) reference(odd Column) routing.MailboxID {
	if odd == ColumnID || odd == ColumnAccount {
		if !c.address.IsZero() {
			return c.address
		}
		if odd == ColumnAccount {
			return c.id
		}
		return c.account
	}
	return c.id
}

// given returns whose the cell of column odd is.
func (c *cells) given(odd Column) routing.MailboxID {
	switch odd {
	case ColumnAddress:
		return c.address
	case ColumnAccount:
		return c.account
	}
	return c.id
}

// oddColumn returns the column that differs from two others that agree, in most of the rows
// that are wrong; of a list with two columns only, the id.
func oddColumn(rows []cells) Column {
	votes := map[Column]int{}
	for i := range rows {
		c := &rows[i]
		if c.address.IsZero() || c.account.IsZero() {
			continue
		}
		switch {
		case c.address == c.account && c.account != c.id:
			votes[ColumnID]++
		case c.address == c.id && c.account != c.id:
			votes[ColumnAccount]++
		case c.account == c.id && c.address != c.id:
			votes[ColumnAddress]++
		}
	}
	odd := ColumnID
	for _, c := range []Column{ColumnAddress, ColumnAccount} {
		if votes[c] > votes[odd] {
			odd = c
		}
	}
	return odd
}

// mixed follows each wrong row to the row that its cell belongs to. Where that leads back
// to the first, those rows are a permutation; cycles that lie across each other are one.
func mixed(in *Input, rows []cells, odd Column) []Permutation {
	at := make(map[routing.MailboxID]int, len(rows))
	for i := range rows {
		if ref := rows[i].reference(odd); !ref.IsZero() {
			if _, twice := at[ref]; twice {
				at[ref] = -1 // not one place: no cycle goes through it
				continue
			}
			at[ref] = i
		}
	}
	next := func(i int) int {
		j, ok := at[rows[i].given(odd)]
		if !ok || rows[i].reference(odd).IsZero() {
			return -1
		}
		return j
	}
	seen := make([]int, len(rows)) // the walk that came by, from 1
	var cycles []cycle
	for i := range rows {
		var walk []int
		j := i
		for j >= 0 && seen[j] == 0 {
			seen[j] = i + 1
			walk = append(walk, j)
			j = next(j)
		}
		if j < 0 || seen[j] != i+1 {
			continue
		}
		ring := walk[slices.Index(walk, j):]
		if len(ring) > 1 {
			cycles = append(cycles, cycle{first: slices.Min(ring), last: slices.Max(ring), rows: ring, exchange: len(ring) == 2})
		}
	}
	var out []Permutation
	for _, c := range together(cycles) {
		out = append(out, describe(in, rows, odd, c))
	}
	return out
}

// cycle is rows that lead to each other; first and last are indexes of rows.
type cycle struct {
	first, last int
	rows        []int
	exchange    bool // made of pairs only
}

// together joins cycles whose ranges overlap.
func together(cycles []cycle) []cycle {
	slices.SortFunc(cycles, func(a, b cycle) int { return cmp.Compare(a.first, b.first) })
	var out []cycle
	for _, c := range cycles {
		if n := len(out); n > 0 && c.first < out[n-1].last {
			l := &out[n-1]
			l.last = max(l.last, c.last)
			l.rows = append(l.rows, c.rows...)
			l.exchange = l.exchange && c.exchange
			continue
		}
		out = append(out, c)
	}
	return out
}

// describe says how the rows of c were mixed.
func describe(in *Input, rows []cells, odd Column, c cycle) Permutation {
	slices.Sort(c.rows)
	p := Permutation{Column: odd, First: lineOf(rows, c.first), Last: lineOf(rows, c.last)}
	block := rows[c.first : c.last+1]
	p.Column, p.How, p.By = how(block, odd, len(c.rows), c.exchange)
	for _, i := range c.rows {
		r := &rows[i]
		pair := Pair{Line: lineOf(rows, i), Name: string(r.row.Address), Owner: r.address, Given: r.id}
		if odd == ColumnAccount || r.row.Address == "" {
			pair.Name, pair.Owner = r.row.Account, r.account
		}
		if in.Source != nil {
			if f, n := in.Source.id(pair.Given); n == foundOne {
				pair.To = f.primary
			}
		}
		p.Pairs = append(p.Pairs, pair)
	}
	return p
}

// lineOf returns the line of a row, or its place from 1 where it came from no file.
func lineOf(rows []cells, i int) int {
	if line := rows[i].row.Line; line > 0 {
		return line
	}
	return i + 1
}

// how says what was done to a block of rows, of which n are wrong, and to which column. Of
// two columns the one that stands in order is the one that was sorted; if both do, the
// addresses stood so before.
func how(block []cells, odd Column, n int, exchange bool) (Column, How, int) {
	if exchange && n <= 2*few {
		return odd, Swapped, 0
	}
	if by := rotation(block, odd); by != 0 {
		return odd, Rotated, by
	}
	candidates := []Column{odd}
	if block[0].row.Account == "" {
		candidates = []Column{ColumnID, ColumnAddress}
	} else if block[0].row.Address == "" {
		candidates = []Column{ColumnID, ColumnAccount}
	}
	for _, c := range candidates {
		switch up := order(block, c); {
		case up > 0:
			return c, Sorted, 0
		case up < 0:
			return c, SortedDown, 0
		}
	}
	return odd, Shuffled, 0
}

// rotation returns by how many rows the column was moved down against the others; 0: it wasn't.
func rotation(block []cells, odd Column) int {
	n := len(block)
	by := 0
	for i := range block {
		if block[i].given(odd) == block[0].reference(odd) {
			by = i
		}
	}
	if by == 0 {
		return 0
	}
	for i := range block {
		if block[(i+by)%n].given(odd) != block[i].reference(odd) {
			return 0
		}
	}
	if by > n/2 {
		by -= n // up
	}
	return by
}

// order returns 1 if the cells of a column ascend, -1 if they descend, else 0. Spreadsheets
// sort by other rules than bytes, so one neighbour in fifty may stand otherwise.
func order(block []cells, c Column) int {
	const fewest = 5 // rows that are in order by chance are no sign
	if len(block) < fewest {
		return 0
	}
	up, down := 0, 0
	for i := 1; i < len(block); i++ {
		switch strings.Compare(sortKey(block[i-1].row, c), sortKey(block[i].row, c)) {
		case -1:
			up++
		case 1:
			down++
		}
	}
	slack := len(block) / 50
	switch {
	case down <= slack && up > 0:
		return 1
	case up <= slack && down > 0:
		return -1
	}
	return 0
}

// sortKey is what a cell is sorted by, roughly: spreadsheets ignore case and hyphens.
func sortKey(r *list.Row, c Column) string {
	switch c {
	case ColumnAddress:
		return strings.ReplaceAll(strings.ToLower(string(r.Address)), "-", "")
	case ColumnAccount:
		return strings.ReplaceAll(strings.ToLower(r.Account), "-", "")
	}
	return r.ID.String()
}

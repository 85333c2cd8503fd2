package docs

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mailcutover/test/peers"
)

// page is a document with commands.
type page struct {
	name   string   // from the repository's root
	needs  string   // what has to be there before, one of setups; "" if it doesn't say
	ports  []string // that it shows
	blocks []block
}

// block is one fenced block of commands.
type block struct {
	line   int      // where it begins, from 1
	marks  []string // the words behind sh
	script string
	shown  []string // the lines that have to be printed
}

func (b block) is(mark string) bool { return slices.Contains(b.marks, mark) }

var runComment = regexp.MustCompile(`^<!-- run: ([a-z, ]+?)(?:; ports ([0-9 ]+))? -->$`)

// parsePage finds the commands of a document.
func parsePage(name, text string) (page, error) {
	p := page{name: name}
	var fence string // the info string of the open block
	var body []string
	open, began, after := false, 0, false // after: the block before this line was one of commands
	s := bufio.NewScanner(strings.NewReader(text))
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		info, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && !open:
			open, fence, body, began = true, info, nil, n
		case isFence:
			open = false
			words := strings.Fields(fence)
			switch {
			case len(words) > 0 && words[0] == "sh":
				p.blocks = append(p.blocks, block{line: began, marks: words[1:], script: strings.Join(body, "\n") + "\n"})
				after = true
				continue
			case fence == "text" && after:
				p.blocks[len(p.blocks)-1].shown = body
			case fence == "text":
				return page{}, fmt.Errorf("%s:%d: what is printed has to follow the commands", name, began)
			}
			after = false
		case open:
			body = append(body, line)
		case runComment.MatchString(line):
			m := runComment.FindStringSubmatch(line)
			p.needs, p.ports = m[1], strings.Fields(m[2])
		case strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "You should see"):
			after = false
		}
	}
	if open {
		return page{}, fmt.Errorf("%s:%d: the block has no end", name, began)
	}
	for _, b := range p.blocks {
		for _, mark := range b.marks {
			if !slices.Contains([]string{"background", "fails", "until", "elsewhere"}, mark) {
				return page{}, fmt.Errorf("%s:%d: nobody knows %q", name, b.line, mark)
			}
		}
		if b.is("until") && len(b.shown) == 0 {
			return page{}, fmt.Errorf("%s:%d: until what? Nothing is shown", name, b.line)
		}
	}
	return p, nil
}

// pages returns every document that has fenced blocks of commands.
func pages(t *testing.T) []page {
	t.Helper()
	root, err := peers.Root()
	if err != nil {
		t.Fatal(err)
	}
	var found []page
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist) && name != ".":
			return nil // another package's tests made it, and have removed it
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(name) != ".md":
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		p, err := parsePage(name, string(text))
		if err != nil {
			return err
		}
		if len(p.blocks) > 0 {
			found = append(found, p)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestParsePage(t *testing.T) {
	text := "# A page\n<!-- run: nothing; ports 2525 8025 -->\n\n```sh until\necho 1\n```\n\nYou should see\n\n```text\n1\n```\n\n" +
		"```yaml\na: 1\n```\n\n```sh\ntrue\n```\n\nAnother thing:\n"
	p, err := parsePage("a.md", text)
	if err != nil {
		t.Fatal(err)
	}
	if p.needs != "nothing" || !slices.Equal(p.ports, []string{"2525", "8025"}) || len(p.blocks) != 2 {
		t.Fatalf("page %+v", p)
	}
	if b := p.blocks[0]; b.line != 4 || !b.is("until") || b.script != "echo 1\n" || !slices.Equal(b.shown, []string{"1"}) {
		t.Errorf("first block %+v", b)
	}
	if b := p.blocks[1]; b.shown != nil || b.script != "true\n" {
		t.Errorf("second block %+v", b)
	}
	for _, wrong := range []string{"```sh\ntrue\n", "```sh sometimes\ntrue\n```\n", "```text\n1\n```\n", "```sh until\ntrue\n```\n", "```sh\ntrue\n```\nbut\n```text\n1\n```\n"} {
		if p, err := parsePage("a.md", wrong); err == nil {
			t.Errorf("%q is a page: %+v", wrong, p)
		}
	}
}

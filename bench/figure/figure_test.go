package figure

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestFigures(t *testing.T) {
	for _, c := range []struct {
		name    string
		f       Figure
		median  float64
		ratio   float64
		missed  bool
		hasABar bool
	}{
		{"no runs have no median and reach nothing", New("x", "s").AtMost(5), 0, 0, true, true},
		{"the middle of three", New("x", "s", 9, 1, 2), 2, 0, false, false},
		{"the lesser middle of four", New("x", "s", 9, 1, 2, 3), 2, 0, false, false},
		{"a bar that is just reached", New("x", "s", 5).AtMost(5), 5, 1, false, true},
		{"a bar that is missed", New("x", "s", 6).AtMost(5), 6, 1.2, true, true},
		{"nothing at all is to be reached", New("x", "", 0).AtMost(0), 0, 0, false, true},
		{"one above the bar for each", New("x", "s", 1, 1, 6).EachAtMost(5), 1, 0, true, true},
		{"none above the bar for each", New("x", "s", 1, 1, 5).EachAtMost(5), 1, 0, false, true},
		{"one below the bar for each", New("x", "%", 94, 99, 99).EachAtLeast(95), 99, 0, true, true},
		{"none below the bar for each", New("x", "%", 95, 99, 99).EachAtLeast(95), 99, 0, false, true},
		{"a ratio without a bar", New("x", "s", 6).Against([]float64{0.5, 2, 0.7}), 6, 0.7, false, false},
		{"a ratio that is reached", New("x", "s", 6).RatioAtLeast(0.75, []float64{0.75}), 6, 0.75, false, true},
		{"a ratio that is missed", New("x", "s", 6).RatioAtLeast(0.75, []float64{0.9, 0.74, 0.1}), 6, 0.74, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.f.Median != c.median || c.f.Ratio != c.ratio || c.f.Missed() != c.missed || (c.f.Reached != nil) != c.hasABar {
				t.Errorf("got %+v", c.f)
			}
		})
	}
}

func TestPrint(t *testing.T) {
	part := Part{Name: "Part", Notes: []string{"note"}, Figures: []Figure{New("time", "s", 1.234, 0.5, 700).AtMost(1)}}
	var text bytes.Buffer
	if err := part.Print(&text); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if got, want := strings.Join(strings.Fields(lines[len(lines)-1]), " "), "time s 3 1.23 0.50 700 1.23 at most 1 s NO"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
	var out bytes.Buffer
	if err := PrintJSON(&out, &part); err != nil {
		t.Fatal(err)
	}
	var back Part
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Figures[0].Median != 1.234 || !back.Figures[0].Missed() {
		t.Errorf("read back %+v, %v", back, err)
	}
}

// One table has what is compared, and nothing else.
func TestPrintCompared(t *testing.T) {
	var text bytes.Buffer
	if err := PrintCompared(&text, []Part{
		{Name: "First", Figures: []Figure{New("slow", "s", 3).AtMost(1), New("told only", "s", 1)}},
		{Name: "Second", Figures: []Figure{New("fast", "s", 1).AtMost(2), New("other", "s", 8).Against([]float64{0.5})}},
	}); err != nil {
		t.Fatal(err)
	}
	out := text.String()
	for _, want := range []string{"1 of 2 bars", "FIRST", "slow", "NO", "SECOND", "fast", "other", "0.50"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "told only") {
		t.Errorf("a figure that is compared with nothing is in\n%s", out)
	}
}

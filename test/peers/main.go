package peers

import (
	"flag"
	"fmt"
	"os"
	"strconv"
)

// Main runs the tests of a package; m is a *testing.M. While they run, dir is a directory for what
// they build. parallel is how many run at a time unless -parallel says so, for tests that wait
// most of the time; 0: as many as there are processors. It returns the code to exit with.
func Main(m interface{ Run() int }, dir *string, parallel int) int {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); parallel > 0 && f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(parallel)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	var err error
	if *dir, err = os.MkdirTemp("", "mc-tests-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(*dir)
	return m.Run()
}

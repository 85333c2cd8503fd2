// Package browser drives the web page in a real Chromium, as people use it: with the keyboard
// alone, with two persons, on a phone, without JavaScript, and looked at by axe for what keeps
// people with disabilities out (WCAG 2.1, levels A and AA).
//
// The test starts a node in its own process, installs the browser's driver from the npm registry
// as package-lock.json pins it, and runs walk.mjs. BROWSER_SHOTS names a directory for pictures.
package browser

// Loaded before a program by `node --require`: writes the token when the program's file has run to
// its end, and not when it leaves earlier. The token comes by standard input, not in any file.
"use strict";
const { readFileSync, writeSync } = require("fs");
const { prototype } = require("module");
const token = readFileSync(0);
const compile = prototype._compile;

// once, for the program: what it loads itself comes later
prototype._compile = function (...given) {
  prototype._compile = compile;
  const result = compile.apply(this, given);
  writeSync(3, token);
  return result;
};

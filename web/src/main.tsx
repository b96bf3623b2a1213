import { render } from "preact";

import { App } from "./ui/App";
import "./styles.css";

const root = document.getElementById("app");
if (!root) throw new Error("the page has no #app element");
render(<App />, root);

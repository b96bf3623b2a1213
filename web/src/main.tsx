import { render } from "preact";

import { App } from "./ui/App";
import "./styles/base.css";
import "./styles/start.css";
import "./styles/stage.css";
import "./styles/panels.css";

const root = document.getElementById("app");
if (!root) throw new Error("the page has no #app element");
render(<App />, root);

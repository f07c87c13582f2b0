// The typefaces, served by ourselves. Browsers fetch only the subsets that a page needs.
import '@fontsource/noto-sans-sc/400.css';
import '@fontsource/noto-sans-sc/500.css';
import '@fontsource/noto-sans-sc/700.css';
import './tibetan.css';
